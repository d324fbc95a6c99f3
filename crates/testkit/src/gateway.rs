//! A gateway: the real binary, as a process of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::leash::Leash;
use crate::{GLANCE, free_port, http, soon};

/// A running `tidewire serve`. It ends with this value, and with the test's process at the latest;
/// when the test panics, its log is printed.
pub struct Gateway {
    leash: Leash,
    folder: tempfile::TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
}

/// How a gateway is to be started.
#[derive(Debug, Clone, Default)]
pub struct GatewayBuilder {
    config: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    unready: bool,
}

impl GatewayBuilder {
    /// Text of the configuration file (TOML); `listen` and `admin` are set besides.
    #[must_use]
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = toml.into();
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// A further argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// The URL of its Redis.
    #[must_use]
    pub fn redis(self, url: impl Into<String>) -> Self {
        self.env("TIDEWIRE_BROKER__URL", url)
    }

    /// Waits at the start only until it is alive, not until it is ready.
    #[must_use]
    pub fn unready(mut self) -> Self {
        self.unready = true;
        self
    }

    /// Starts it and waits.
    ///
    /// # Panics
    /// When the binary is not there, or does not start; with its log.
    pub async fn start(&self) -> Gateway {
        // Another process may take a port first.
        for _ in 0..3 {
            let mut gateway = self.launch();
            if gateway.answers(if self.unready { "/healthz" } else { "/readyz" }).await {
                return gateway;
            }
            let log = gateway.log();
            assert!(log.to_lowercase().contains("in use"), "the gateway ended; its log:\n{log}");
        }
        panic!("no ports for a gateway");
    }

    fn launch(&self) -> Gateway {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("tidewire.toml");
        std::fs::write(&config, &self.config).expect("a configuration file");
        let log = File::create(folder.path().join("log")).expect("a log file");
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let binary = binary();
        let mut command = Command::new(&binary);
        // A node takes every such variable for a setting; here the test alone gives them.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEWIRE_") {
                command.env_remove(name);
            }
        }
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .args(&self.arguments)
            .env("TIDEWIRE_LISTEN", listen.to_string())
            .env("TIDEWIRE_ADMIN", admin.to_string())
            .envs(self.environment.iter().cloned())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file once more"))
            .stderr(log);
        let leash = Leash::spawn(&mut command).unwrap_or_else(|error| {
            panic!("{}: {error} (build it first: cargo build -p tidewire)", binary.display())
        });
        Gateway { leash, folder, listen, admin }
    }
}

impl Gateway {
    /// How to start one; nothing is set.
    #[must_use]
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::default()
    }

    /// Starts one with the embedded broker and everything as it comes.
    ///
    /// # Panics
    /// As [`GatewayBuilder::start`].
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listen
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn http(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// `ws://127.0.0.1:<port>`.
    #[must_use]
    pub fn ws(&self) -> String {
        format!("ws://{}", self.listen)
    }

    /// The id of the process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.leash.id()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `/readyz`: the status, and the reason in its body.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn readiness(&self) -> (u16, String) {
        let answer = http::get(self.admin, "/readyz").await;
        (answer.status(), answer.text())
    }

    /// Waits until `/readyz` answers with this status.
    ///
    /// # Panics
    /// When it does not.
    pub async fn wait_ready(&self, status: u16) {
        soon("readiness", async {
            while self.readiness().await.0 != status {
                tokio::time::sleep(GLANCE).await;
            }
        })
        .await;
    }

    /// The value of a metric whose name and labels are written so: `tidewire_ready` or
    /// `tidewire_connections{transport="sse"}`. None when it is not there.
    ///
    /// # Panics
    /// When `/metrics` does not answer.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = http::get(self.admin, "/metrics").await.text();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The sum of a metric over all its labels; 0 when it is not there.
    ///
    /// # Panics
    /// When `/metrics` does not answer.
    pub async fn metric_sum(&self, name: &str) -> f64 {
        let text = http::get(self.admin, "/metrics").await.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        values.sum()
    }

    /// Kills it (SIGKILL).
    pub async fn kill(&mut self) {
        self.leash.kill().await;
    }

    /// Tells it to stop (SIGTERM); [`Gateway::wait`] waits for it.
    pub fn terminate(&mut self) {
        self.leash.signal(Signal::TERM);
    }

    /// Tells it to read its certificate again (SIGHUP).
    pub fn hang_up(&mut self) {
        self.leash.signal(Signal::HUP);
    }

    /// Stops the process (SIGSTOP), its connections stay open.
    pub fn pause(&mut self) {
        self.leash.signal(Signal::STOP);
    }

    /// Lets a stopped process go on (SIGCONT).
    pub fn resume(&mut self) {
        self.leash.signal(Signal::CONT);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn wait(&mut self) -> ExitStatus {
        self.leash.wait().await
    }

    /// Waits until the path on the admin listener answers 200; false when the process ended.
    async fn answers(&mut self, path: &str) -> bool {
        soon("the gateway's start", async {
            loop {
                if self.leash.ended().is_some() {
                    return false;
                }
                let listens = TcpStream::connect(self.admin).await.is_ok();
                if listens && http::get(self.admin, path).await.status() == 200 {
                    return true;
                }
                tokio::time::sleep(GLANCE).await;
            }
        })
        .await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log of the gateway on {}\n{}---", self.listen, self.log());
        }
    }
}

/// The binary: `TIDEWIRE_BIN`, else beside the folder of the test's executable.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEWIRE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a process knows its executable");
    // target/debug/deps/<test> and target/debug/tidewire
    let folder = test.ancestors().find(|folder| folder.join("tidewire").is_file());
    folder.map_or_else(|| "target/debug/tidewire".into(), |folder| folder.join("tidewire"))
}
