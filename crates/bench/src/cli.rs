//! The command line.

mod load;
mod resume;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::outcome::Run;
use crate::subscriber::Words;
pub(crate) use load::{Cross, Fanout, Inbound, Load};
pub(crate) use resume::{Avalanche, Jitter};

/// Measures a realtime server from outside: memory per connection, CPU per delivered message,
/// latency. Linux only; the server's CPU and memory are read from /proc of --pid.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Opens many connections, holds them, and says what each costs the server.
    Connect(Connect),
    /// Publishes to one channel with many subscribers.
    Fanout(Fanout),
    /// Publishes on one node and receives on another.
    Cross(Cross),
    /// Lets many clients publish over their own WebSockets, and waits for the acknowledgements
    /// (Tidewire, and `limit`, which sends back what comes).
    Inbound(Inbound),
    /// Serves as the bare loop that other servers are compared with: one thread, one frame
    /// encoded once, one send a subscriber. WebSocket at /ws, SSE at /sse, POST to /publish; each with ?channel=.
    Limit(Limit),
    /// Lets all clients of a channel lose their connections and come back at once with their
    /// cursors (Tidewire only).
    Avalanche(Avalanche),
    /// Cuts clients off again and again while messages are published, and counts what reaches them
    /// (Tidewire only).
    Jitter(Jitter),
    /// Medians of many JSON lines, as Markdown.
    Summary(Summary),
}

/// How to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct Print {
    /// One JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// A name for this run, passed on to the JSON line.
    #[arg(long)]
    label: Option<String>,
    /// Which repetition this is, passed on to the JSON line.
    #[arg(long)]
    round: Option<u32>,
}

impl Print {
    /// The run's name.
    pub(crate) fn run(&self) -> Run {
        Run { label: self.label.clone(), round: self.round }
    }
}

/// How subscribers connect.
#[derive(Debug, Clone, Args)]
pub(crate) struct CrowdArguments {
    /// How many handshakes may be under way at a time.
    #[arg(long, default_value_t = 128)]
    pub(crate) at_once: usize,
    /// How many loopback addresses to come from (127.0.0.1, .2, …), when ports run short.
    #[arg(long, default_value_t = 1)]
    pub(crate) sources: u8,
    /// The text by which the server says that the subscription holds; empty: its handshake does.
    #[arg(long, default_value = "welcome")]
    ready: String,
    /// A text frame to send once the WebSocket is open, for servers that want to be asked.
    #[arg(long)]
    hello: Option<String>,
    /// Offers permessage-deflate on WebSockets, and reads what comes compressed.
    #[arg(long)]
    deflate: bool,
}

impl CrowdArguments {
    /// How one becomes subscribed.
    pub(crate) fn words(&self) -> Words {
        Words { ready: self.ready.clone(), hello: self.hello.clone(), deflate: self.deflate }
    }
}

/// `connect`.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Where to: ws: or http: (SSE); {channel} stands for the channel.
    #[arg(long)]
    pub(crate) url: String,
    #[arg(long, default_value = "bench")]
    pub(crate) channel: String,
    /// How many.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Subscribes each to so many channels that no other has; the URL then has no query.
    #[arg(long)]
    pub(crate) own: Option<usize>,
    /// For how long, such as 10s.
    #[arg(long, default_value = "5s")]
    pub(crate) hold: Span,
    /// Ends when standard input is closed, if that is before.
    #[arg(long)]
    pub(crate) until_closed: bool,
    /// The server's process (repeatable: all together).
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    #[command(flatten)]
    pub(crate) crowd: CrowdArguments,
    #[command(flatten)]
    pub(crate) print: Print,
}

/// `limit`.
#[derive(Debug, Args)]
pub(crate) struct Limit {
    /// Where to listen; port 0 lets the system choose. The address is printed.
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub(crate) listen: SocketAddr,
    /// Joins the frames of all messages that wait, and sends them at once.
    #[arg(long)]
    pub(crate) join: bool,
}

/// `summary`.
#[derive(Debug, Args)]
pub(crate) struct Summary {
    /// JSON lines of this program.
    pub(crate) file: PathBuf,
    /// Compares, round by round, one label with another: ws=limit-ws (repeatable).
    #[arg(long, value_parser = pair)]
    pub(crate) against: Vec<(String, String)>,
}

/// A duration on the command line: `10s`, `500ms`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, millis) = match text.strip_suffix("ms") {
            Some(number) => (number, 1),
            None => (text.strip_suffix('s').unwrap_or(text), 1_000),
        };
        let number: u32 = number.parse().map_err(|_| "a time is 10s or 500ms")?;
        Ok(Self(Duration::from_millis(u64::from(number) * millis)))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let sound = |rate: &f64| *rate > 0.0 && rate.is_finite();
    text.parse().ok().filter(sound).ok_or("a rate is a number above 0")
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (one, other) = text.split_once('=').ok_or("two labels are needed: ws=limit-ws")?;
    Ok((one.to_owned(), other.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times() {
        assert_eq!("10s".parse::<Span>().unwrap().0, Duration::from_secs(10));
        assert_eq!("500ms".parse::<Span>().unwrap().0, Duration::from_millis(500));
        assert_eq!("3".parse::<Span>().unwrap().0, Duration::from_secs(3));
        assert!("1h".parse::<Span>().is_err());
    }
}
