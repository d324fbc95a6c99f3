//! The cluster: Redis, the nodes, and a proxy on each link, by which it is broken.
//!
//! It stands in two halves, one for each row of faults: what stores, and what serves.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;
use tidewire_testkit::{Gateway, Proxy, RedisServer, free_port};

use crate::plan::{Mode, Plan};
use crate::standby::Standby;

/// Redis, the links of the nodes to it, and a copy of its data.
pub(crate) struct Storage {
    pub(crate) redis: RedisServer,
    /// By node.
    pub(crate) links: Vec<Proxy>,
    /// The replica for which acks wait, if they do.
    pub(crate) standby: Option<Standby>,
    data: TempDir,
    copy: TempDir,
}

/// The nodes and what stands before them.
pub(crate) struct Serving {
    pub(crate) nodes: Vec<Node>,
    pub(crate) fronts: Vec<Proxy>,
}

/// A node, whichever process it is at the time.
pub(crate) struct Node {
    pub(crate) process: Gateway,
    number: usize,
    listen: SocketAddr,
    redis: SocketAddr,
    mode: Mode,
    logs: PathBuf,
    starts: usize,
}

const APPEND_ONLY: &str = "appendonlydir";

/// Starts a Redis and so many nodes; their logs go into the folder.
pub(crate) async fn start(
    count: usize,
    mode: Mode,
    logs: &Path,
) -> anyhow::Result<(Storage, Serving)> {
    let (data, copy) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let folder = data.path().to_str().context("a folder's name")?.to_owned();
    let redis = RedisServer::with(&[
        "--dir",
        &folder,
        "--appendonly",
        "yes",
        "--appendfsync",
        mode.append_fsync(),
        // A rewrite would change files while they are copied.
        "--auto-aof-rewrite-percentage",
        "0",
        "--enable-debug-command",
        "local",
        // A replica is fed at once.
        "--stream-node-max-entries",
        "10",
        "--repl-diskless-sync-delay",
        "0",
    ])
    .await;
    // Before anything is stored: the first replica begins a new life.
    let standby = match mode {
        Mode::Standby => Some(Standby::of(redis.addr()).await?),
        Mode::Usual | Mode::Trust => None,
    };
    let (mut links, mut nodes, mut fronts) = (vec![], vec![], vec![]);
    for number in 0..count {
        let link = Proxy::start(redis.addr()).await;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        fronts.push(Proxy::start(listen).await);
        let process = launch(listen, link.addr(), mode).await;
        let (redis, logs) = (link.addr(), logs.to_owned());
        nodes.push(Node { process, number, listen, redis, mode, logs, starts: 1 });
        links.push(link);
    }
    for node in &nodes {
        node.process.wait_ready(200).await;
    }
    Ok((Storage { redis, links, standby, data, copy }, Serving { nodes, fronts }))
}

impl Node {
    /// Starts it again after its process has ended.
    pub(crate) async fn restart(&mut self) -> std::io::Result<()> {
        self.keep_log()?;
        self.process = launch(self.listen, self.redis, self.mode).await;
        self.starts += 1;
        Ok(())
    }

    /// Keeps the log of its present process.
    pub(crate) fn keep_log(&self) -> std::io::Result<()> {
        let name = format!("node-{}-{}.log", self.number, self.starts);
        std::fs::write(self.logs.join(name), self.process.log())
    }
}

async fn launch(listen: SocketAddr, redis: SocketAddr, mode: Mode) -> Gateway {
    // It may have no Redis just now, and must start all the same.
    let gateway = Gateway::builder().config(Plan::config(mode)).redis(format!("redis://{redis}"));
    gateway.env("TIDEWIRE_LISTEN", listen.to_string()).unready().start().await
}

impl Storage {
    /// Keeps a copy of what Redis has on disk now.
    pub(crate) fn copy_data(&self) -> std::io::Result<()> {
        copy(&self.data.path().join(APPEND_ONLY), &self.copy.path().join(APPEND_ONLY))
    }

    /// Puts the copy in place of what Redis has on disk; Redis must be down.
    pub(crate) fn roll_back(&self) -> std::io::Result<()> {
        copy(&self.copy.path().join(APPEND_ONLY), &self.data.path().join(APPEND_ONLY))
    }

    /// Removes what Redis has on disk; Redis must be down.
    pub(crate) fn remove_data(&self) -> std::io::Result<()> {
        std::fs::remove_dir_all(self.data.path().join(APPEND_ONLY))
    }
}

/// Copies the files of a folder; what else is in the target goes.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
