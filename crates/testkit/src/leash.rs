//! A child process that cannot outlive the test, however the test ends.

use std::io;
use std::process::{Child as Guard, Command as GuardCommand, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::soon;

/// A child process and the guard that kills it when this process is gone.
///
/// The guard is a shell that reads from a pipe whose other end only this process holds: when the
/// pipe closes, be it that the test was killed, the shell kills the child.
pub(crate) struct Leash {
    child: Child,
    pid: Pid,
    guard: Guard,
}

impl Leash {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.expect("a process just started has an id");
        let guard = GuardCommand::new("sh")
            .args(["-c", "read -r _; kill -9 \"$0\"", &pid.as_raw_nonzero().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        Ok(Self { child, pid, guard })
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends a signal, unless the child has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill_process(self.pid, signal).expect("a signal to a child of one's own");
        }
    }

    /// The status, if the child has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        soon("the end of a process", self.child.wait()).await.expect("a child can be waited for")
    }

    /// Kills it and waits.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait().await;
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // The guard first: once the child is waited for, its id may be another process's.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.child.start_kill();
        // A killed process ends at once (also a stopped one); the loop only waits for the kernel.
        while let Ok(None) = self.child.try_wait() {
            std::thread::yield_now();
        }
    }
}
