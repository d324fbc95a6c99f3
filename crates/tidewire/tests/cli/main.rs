//! The command line as a person and a script meet it: the real binary, its output and exit codes.
//! What the binary asks is answered by a scripted peer on a loopback port.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod clients;
mod peer;
mod settings;

use std::process::{Command, Output, Stdio};

/// The binary with these arguments and an empty environment, so that no variable of the machine
/// takes part.
fn tidewire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Exit code (absent: ended by a signal), standard output, standard error.
fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    outcome(&tidewire(arguments).output().unwrap())
}
