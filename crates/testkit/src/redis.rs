//! A real redis-server of the test's own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::leash::Leash;
use crate::{GLANCE, free_port, soon};

/// A redis-server on a free port of 127.0.0.1, in a folder of its own, keeping nothing on disk
/// unless told to. `TIDEWIRE_REDIS_SERVER` names another program than that on the PATH, such as
/// another version or a valkey-server. It ends with this value, and with the test's process at the latest.
pub struct RedisServer {
    leash: Leash,
    folder: tempfile::TempDir,
    port: u16,
    arguments: Vec<String>,
}

/// What Redis answered (RESP2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`, or a bulk string.
    Text(Vec<u8>),
    /// An error, with its code: `NOAUTH Authentication required.`
    Error(String),
    /// A number.
    Int(i64),
    /// Nothing.
    Nil,
    /// Several.
    Array(Vec<Reply>),
}

impl Reply {
    /// The text.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => panic!("expected text, got {other:?}"),
        }
    }
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Panics
    /// When redis-server is not installed or does not start.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts one with further arguments, such as `["--requirepass", "secret"]` or
    /// `["--appendonly", "yes"]`.
    ///
    /// # Panics
    /// When redis-server is not installed or does not start.
    pub async fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        // Another process may take the port first.
        for _ in 0..10 {
            let port = free_port();
            let mut leash = launch(folder.path(), port, &arguments);
            if answers(&mut leash, port, &arguments).await {
                return Self { leash, folder, port, arguments };
            }
        }
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("redis-server does not start; its log:\n{log}");
    }

    /// `redis://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Its address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The id of the process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.leash.id()
    }

    /// Kills it (SIGKILL).
    pub async fn kill(&mut self) {
        self.leash.kill().await;
    }

    /// Ends it orderly (SIGTERM).
    pub async fn terminate(&mut self) {
        self.leash.signal(Signal::TERM);
        self.leash.wait().await;
    }

    /// Stops the process (SIGSTOP): its connections stay open, and nothing is answered.
    pub fn pause(&mut self) {
        self.leash.signal(Signal::STOP);
    }

    /// Lets a stopped process go on (SIGCONT).
    pub fn resume(&mut self) {
        self.leash.signal(Signal::CONT);
    }

    /// Starts it again on the same port, killing it first if it runs. It has the data that it kept
    /// on disk, which is none unless its arguments say so.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.leash = launch(self.folder.path(), self.port, &self.arguments);
        let answers = answers(&mut self.leash, self.port, &self.arguments).await;
        assert!(answers, "redis-server does not start again");
    }

    /// Starts it again on the same port without any data.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart_empty(&mut self) {
        self.kill().await;
        for entry in std::fs::read_dir(self.folder.path()).expect("its folder").flatten() {
            // Files and the folder of the append-only file alike.
            let _ = std::fs::remove_file(entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
        self.restart().await;
    }

    /// Starts it again on the same port without waiting until it answers.
    pub async fn restart_without_waiting(&mut self) {
        self.kill().await;
        self.leash = launch(self.folder.path(), self.port, &self.arguments);
    }

    /// Sends a command on a connection of its own (which logs in if `--requirepass` was given).
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn command<A: AsRef<[u8]>>(&self, command: &[A]) -> Reply {
        let ask = async {
            let mut stream = log_in(self.port, &self.arguments).await?;
            ask(&mut stream, command).await
        };
        soon("an answer of redis-server", ask).await.expect("redis-server answers")
    }

    /// `PUBLISH`; returns how many got it.
    ///
    /// # Panics
    /// When it fails.
    pub async fn publish(&self, channel: &str, body: impl AsRef<[u8]>) -> i64 {
        match self.command(&[b"PUBLISH", channel.as_bytes(), body.as_ref()]).await {
            Reply::Int(receivers) => receivers,
            other => panic!("PUBLISH {channel}: {other:?}"),
        }
    }
}

fn launch(folder: &Path, port: u16, arguments: &[String]) -> Leash {
    let program = std::env::var_os("TIDEWIRE_REDIS_SERVER").unwrap_or("redis-server".into());
    let mut command = Command::new(program);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--logfile", "log", "--daemonize", "no"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match Leash::spawn(&mut command) {
        Ok(leash) => leash,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            panic!("these tests need redis-server on the PATH (Debian: apt install redis-server)")
        }
        Err(error) => panic!("redis-server does not start: {error}"),
    }
}

/// Waits until it answers a PING and has loaded what it kept; false when it ended instead.
async fn answers(leash: &mut Leash, port: u16, arguments: &[String]) -> bool {
    soon("redis-server's start", async {
        while leash.ended().is_none() {
            if ping(port, arguments).await.is_ok_and(|ready| ready) {
                return true;
            }
            tokio::time::sleep(GLANCE).await;
        }
        false
    })
    .await
}

async fn ping(port: u16, arguments: &[String]) -> io::Result<bool> {
    let mut stream = log_in(port, arguments).await?;
    Ok(match ask(&mut stream, &["PING"]).await? {
        Reply::Error(error) => !error.starts_with("LOADING"),
        _ => true,
    })
}

/// A connection, logged in with `--requirepass` if it is among the arguments.
async fn log_in(port: u16, arguments: &[String]) -> io::Result<BufReader<TcpStream>> {
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    if let Some(password) = arguments.iter().skip_while(|a| *a != "--requirepass").nth(1) {
        ask(&mut stream, &["AUTH", password]).await?;
    }
    Ok(stream)
}

async fn ask<A: AsRef<[u8]>>(
    stream: &mut BufReader<TcpStream>,
    command: &[A],
) -> io::Result<Reply> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        let part = part.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    stream.write_all(&bytes).await?;
    read(stream).await
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let number = || rest.parse::<i64>().expect("a number from Redis");
    Ok(match kind {
        "+" => Reply::Text(rest.into()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Int(number()),
        "$" | "*" if number() < 0 => Reply::Nil,
        "$" => {
            let mut bytes = vec![0; usize::try_from(number()).unwrap() + 2];
            stream.read_exact(&mut bytes).await?;
            bytes.truncate(bytes.len() - 2);
            Reply::Text(bytes)
        }
        "*" => {
            let mut items = vec![];
            for _ in 0..number() {
                items.push(Box::pin(read(stream)).await?);
            }
            Reply::Array(items)
        }
        _ => panic!("not RESP2: {line:?}"),
    })
}
