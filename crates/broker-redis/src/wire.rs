//! One connection to Redis: made with time-outs, logged in, and found to lead to a master.
//!
//! Links and publishers call it, then read and write by themselves.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::time::timeout;

use crate::resp::{self, ProtocolError, Reader, Reply};
use crate::server::Server;
use crate::settings::{Settings, Target};
use crate::stream::{Input, Output, Stream};

/// How many bytes one read takes at most.
const READ_BYTES: usize = 64 << 10;
/// The longest text of the server that is passed on.
const MAX_REASON: usize = 200;

/// Why there is no connection, in words for an operator, without secrets.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect to {0}: {1}")]
    Tcp(String, io::Error),
    #[error("no TLS with {0}: {1}")]
    Tls(String, String),
    #[error("the connection broke while it was set up: {0}")]
    Io(#[from] io::Error),
    #[error("no connection to {0} within {1:?}")]
    Timeout(String, Duration),
    #[error("Redis refuses the login: {0}")]
    Login(String),
    #[error("Redis refuses: {0}")]
    Refused(String),
    #[error("the server is a read-only replica")]
    Replica,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl ConnectError {
    /// A connection was not there in time. A Redis that speaks no TLS waits for the end of a line, and so
    /// says nothing.
    pub(crate) fn late(target: &Target, settings: &Settings) -> Self {
        let doubt = if target.tls.is_some() { " over TLS (does it speak TLS there?)" } else { "" };
        let to = format!("{}:{}{doubt}", target.host, target.port);
        Self::Timeout(to, settings.connect_timeout)
    }
}

/// A connection: its halves and what was read but not yet understood.
pub(crate) struct Wire {
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) reader: Reader,
}

/// What a new connection leads to.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    /// The connection's id in the server's books.
    pub(crate) client_id: i64,
    pub(crate) server: Server,
}

/// A reply that outlives the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Text(String),
    Error(String),
    Int(i64),
    Nil,
}

/// Connects, logs in and looks whether it is a master.
pub(crate) async fn connect(
    target: &Target,
    settings: &Settings,
    name: &str,
) -> Result<(Wire, Hello), ConnectError> {
    let steps = async {
        let mut wire = Wire::open(target, settings).await?;
        let hello = wire.greet(target, name).await?;
        Ok((wire, hello))
    };
    match timeout(settings.connect_timeout, steps).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::late(target, settings)),
    }
}

impl Wire {
    async fn open(target: &Target, settings: &Settings) -> Result<Self, ConnectError> {
        let (input, output) = Stream::open(target, settings).await?.split();
        Ok(Self { input, output, reader: Reader::new(settings.frame_bytes()) })
    }

    async fn greet(&mut self, target: &Target, name: &str) -> Result<Hello, ConnectError> {
        if let Some(password) = target.password() {
            let words = [Some("AUTH"), target.user(), Some(password)];
            let words: Vec<_> = words.into_iter().flatten().map(str::as_bytes).collect();
            if let [Answer::Error(error)] = &self.ask(&[&words]).await?[..] {
                // A server that does not know the command quotes its arguments.
                let code = error.split(' ').next().unwrap_or_default();
                return Err(ConnectError::Login(code.to_owned()));
            }
        }
        let answers = self
            .ask(&[
                // Refused while the server is loading, or without a login.
                &[b"PING"],
                &[b"CLIENT", b"ID"],
                &[b"INFO", b"server"],
                &[b"INFO", b"replication"],
                &[b"CLIENT", b"SETNAME", name.as_bytes()],
            ])
            .await?;
        let refusal = answers.iter().take(4).find_map(|answer| match answer {
            Answer::Error(error) => Some(error.clone()),
            _ => None,
        });
        if let Some(refusal) = refusal {
            return Err(ConnectError::Refused(refusal));
        }
        let [_, Answer::Int(client_id), Answer::Text(server), Answer::Text(replication), ..] =
            &answers[..]
        else {
            return Err(ProtocolError("an unexpected answer to CLIENT ID or INFO").into());
        };
        let server = Server::read(server, replication);
        if !server.master {
            return Err(ConnectError::Replica);
        }
        Ok(Hello { client_id: *client_id, server })
    }

    /// Sends commands and reads as many answers. Only before the connection is put to its use.
    pub(crate) async fn ask(&mut self, commands: &[&[&[u8]]]) -> Result<Vec<Answer>, ConnectError> {
        let mut out = BytesMut::new();
        for command in commands {
            resp::command(command, &mut out);
        }
        self.output.write_all(out).await?;
        let mut answers = vec![];
        while answers.len() < commands.len() {
            match self.reader.next()? {
                Some(reply) => answers.push(Answer::from(reply)),
                None => self.fill().await.map(|_| ())?,
            }
        }
        Ok(answers)
    }

    /// Reads what has come, at least one byte. Can be cancelled without loss.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        fill(&mut self.input, &mut self.reader).await
    }
}

/// As [`Wire::fill`], for who borrows the parts apart.
pub(crate) async fn fill(input: &mut Input, reader: &mut Reader) -> io::Result<usize> {
    input.read(reader.space(READ_BYTES)).await
}

impl From<Reply<'_>> for Answer {
    fn from(reply: Reply<'_>) -> Self {
        match reply {
            Reply::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            Reply::Error(error) => Self::Error(reason(error)),
            Reply::Int(number) => Self::Int(number),
            Reply::Nil | Reply::Push(_) | Reply::TooLarge(..) => Self::Nil,
        }
    }
}

/// A server's text as part of a reason: not too long, and of one line.
pub(crate) fn reason(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON).collect()
}
