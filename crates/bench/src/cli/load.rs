//! The arguments of what publishes at a rate: `fanout`, `cross` and `inbound`.

use std::time::Duration;

use clap::Args;

use super::{CrowdArguments, Print, Span, rate};
use crate::pace::Pace;

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
    /// Ends after so many messages, if the time is not over before.
    #[arg(long)]
    pub(crate) messages: Option<u64>,
    /// So many of the subscribers stop reading once they are subscribed, evenly over the channels.
    /// They count for nothing but what they cost; the report tells how many the server let go.
    #[arg(long, default_value_t = 0)]
    pub(crate) stalled: usize,
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
            messages: None,
            stalled: 0,
            warmup: Span(Duration::from_secs(1)),
            pid: self.pid.clone(),
            crowd: self.crowd.clone(),
            print: self.print.clone(),
        }
    }
}

/// `inbound`.
#[derive(Debug, Args)]
pub(crate) struct Inbound {
    /// Where clients connect and publish: ws:.
    #[arg(long)]
    pub(crate) url: String,
    /// What they publish to; nobody is subscribed to it.
    #[arg(long, default_value = "bench")]
    pub(crate) channel: String,
    #[arg(long, default_value_t = 10_000)]
    pub(crate) clients: usize,
    /// Messages a second, of all clients together: they take turns.
    #[arg(long, default_value_t = 10_000.0, value_parser = rate)]
    pub(crate) rate: f64,
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
