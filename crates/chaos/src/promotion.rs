//! Replicas whose clocks run behind, and their promotion: one becomes the master, on its port.
//!
//! The clock is set back by a small library that is loaded before the C library; where there is no
//! C compiler, the replica's clock is right.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tidewire_testkit::free_port;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::shared::{Shared, client};

/// By then the replica has all the data.
const PATIENCE: Duration = Duration::from_secs(15);
const GLANCE: Duration = Duration::from_millis(30);
/// What Redis asks for the time, two seconds behind.
const CLOCK: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  long result = syscall(SYS_gettimeofday, at, zone);
  if (result == 0 && at) at->tv_sec -= 2;
  return (int)result;
}
time_t time(time_t *at) {
  struct timeval now;
  gettimeofday(&now, 0);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
";

/// A replica; it ends with this value.
pub(crate) struct Replica {
    process: Child,
    _folder: TempDir,
    addr: SocketAddr,
}

impl Replica {
    /// Starts a replica and waits until it has everything.
    pub(crate) async fn of(master: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let clock = slow_clock(&folder).await?;
        let addr = SocketAddr::from((master.ip(), free_port()));
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &addr.port().to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--replicaof", &master.ip().to_string(), &master.port().to_string()])
            .args(["--enable-debug-command", "local"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if let Some(clock) = clock {
            command.env("LD_PRELOAD", clock);
        }
        let replica = Self { process: command.spawn()?, _folder: folder, addr };
        timeout(PATIENCE, replica.in_step()).await.context("the replica does not come up")?;
        Ok(replica)
    }

    async fn in_step(&self) {
        while !self.is_in_step().await.unwrap_or(false) {
            sleep(GLANCE).await;
        }
    }

    async fn is_in_step(&self) -> anyhow::Result<bool> {
        let mut redis = self.connect().await?;
        let about: String = redis::cmd("INFO").arg("replication").query_async(&mut redis).await?;
        Ok(about.contains("master_link_status:up"))
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        client(self.addr, PATIENCE).await
    }

    /// Kills it; then its port is free.
    pub(crate) async fn kill(&mut self) -> std::io::Result<()> {
        self.process.kill().await
    }

    /// Makes it the master, on the port of the one that has died.
    pub(crate) async fn promote(&self, shared: &Shared) -> anyhow::Result<()> {
        let mut redis = self.connect().await?;
        redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut redis).await?;
        let port = shared.redis.port();
        let mut take = redis::cmd("CONFIG");
        take.arg("SET").arg("port").arg(port);
        take.exec_async(&mut redis).await.context("taking the port")?;
        Ok(())
    }
}

/// Builds the library, if there is a compiler.
async fn slow_clock(folder: &TempDir) -> anyhow::Result<Option<PathBuf>> {
    let (source, library) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
    std::fs::write(&source, CLOCK)?;
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    compile.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(compile.status().await.is_ok_and(|status| status.success()).then_some(library))
}
