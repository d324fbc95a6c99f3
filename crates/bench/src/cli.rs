//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::outcome::Run;
use crate::pace::Pace;
use crate::subscriber::Words;

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
    /// Serves as the bare loop that other servers are compared with: one thread, one frame
    /// encoded once, one send a subscriber. WebSocket at /ws, SSE at /sse, POST to /publish.
    Limit(Limit),
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
}

impl CrowdArguments {
    /// How one becomes subscribed.
    pub(crate) fn words(&self) -> Words {
        Words { ready: self.ready.clone(), hello: self.hello.clone() }
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
    /// For how long, such as 10s.
    #[arg(long, default_value = "5s")]
    pub(crate) hold: Span,
    /// The server's process (repeatable: all together).
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    #[command(flatten)]
    pub(crate) crowd: CrowdArguments,
    #[command(flatten)]
    pub(crate) print: Print,
}

/// `fanout`.
#[derive(Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) load: Load,
}

/// A load on one channel.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Where subscribers connect: ws: or http: (SSE); {channel} stands for the channel.
    #[arg(long)]
    pub(crate) url: String,
    /// Where messages are published: http: (POST), ws:, or redis://HOST/NAME (PUBLISH to NAME).
    #[arg(long)]
    pub(crate) publish: String,
    /// What is published, with {payload} and perhaps {channel}; by default what Tidewire takes.
    #[arg(long)]
    pub(crate) body: Option<String>,
    #[arg(long, default_value = "bench")]
    pub(crate) channel: String,
    #[arg(long, default_value_t = 1_000)]
    pub(crate) subscribers: usize,
    /// Spreads the subscribers over so many channels, whose names end with a number; they are
    /// published to in turn. It divides the number of subscribers.
    #[arg(long, default_value_t = 1)]
    pub(crate) channels: usize,
    /// Messages a second.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// As fast as it goes, with so many messages under way (not yet received by all).
    #[arg(long, conflicts_with = "rate", num_args = 0..=1, default_missing_value = "8",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) saturate: Option<u32>,
    /// Over how many connections messages are published, in turn. Few servers answer the second
    /// request of a connection before the first.
    #[arg(long, default_value_t = 8)]
    pub(crate) publishers: usize,
    /// Length of the payload, a text.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload_bytes: usize,
    /// For how long to publish, such as 10s or 500ms.
    #[arg(long, default_value = "10s")]
    pub(crate) seconds: Span,
    /// The same before it, not measured.
    #[arg(long, default_value = "1s")]
    pub(crate) warmup: Span,
    /// The server's process (repeatable: all together).
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    #[command(flatten)]
    pub(crate) crowd: CrowdArguments,
    #[command(flatten)]
    pub(crate) print: Print,
}

impl Load {
    /// The channels' names.
    pub(crate) fn names(&self) -> Vec<String> {
        match self.channels {
            1 => vec![self.channel.clone()],
            count => (0..count).map(|number| format!("{}{number}", self.channel)).collect(),
        }
    }

    /// How fast it publishes.
    pub(crate) fn pace(&self) -> Pace {
        self.saturate.map_or(Pace::Rate(self.rate), Pace::UnderWay)
    }
}

/// `cross`.
#[derive(Debug, Args)]
pub(crate) struct Cross {
    /// Where messages are published: node A.
    #[arg(long)]
    publish: String,
    /// Where they are received: node B.
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "bench")]
    channel: String,
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    /// Messages a second.
    #[arg(long, default_value_t = 500.0, value_parser = rate)]
    rate: f64,
    /// Over how many connections messages are published, in turn. Few servers answer the second
    /// request of a connection before the first.
    #[arg(long, default_value_t = 32)]
    publishers: usize,
    /// Length of the payload, a text.
    #[arg(long, default_value_t = 128)]
    payload_bytes: usize,
    /// For how long to publish, such as 10s.
    #[arg(long, default_value = "10s")]
    seconds: Span,
    /// The processes of both nodes.
    #[arg(long)]
    pid: Vec<u32>,
    #[command(flatten)]
    crowd: CrowdArguments,
    #[command(flatten)]
    pub(crate) print: Print,
}

impl Cross {
    /// The load that it is.
    pub(crate) fn as_load(&self) -> Load {
        Load {
            url: self.url.clone(),
            publish: self.publish.clone(),
            body: None,
            channel: self.channel.clone(),
            subscribers: self.subscribers,
            channels: 1,
            rate: self.rate,
            saturate: None,
            publishers: self.publishers,
            payload_bytes: self.payload_bytes,
            seconds: self.seconds,
            warmup: Span(Duration::from_secs(1)),
            pid: self.pid.clone(),
            crowd: self.crowd.clone(),
            print: self.print.clone(),
        }
    }
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
