//! The arguments of `avalanche` and `jitter`.

use clap::Args;

use super::{Print, Span, rate};

/// `avalanche`.
#[derive(Debug, Args)]
pub(crate) struct Avalanche {
    /// Where clients are at first: ws:, with {channel}.
    #[arg(long)]
    pub(crate) url: String,
    /// Where they come back to, and where those are who stay; by default the same.
    #[arg(long)]
    pub(crate) back: Option<String>,
    /// Where messages are published: ws:, or http: (POST) with {channel}. Over HTTP one waits for
    /// the other's answer, and those who stay for that.
    #[arg(long)]
    pub(crate) publish: String,
    /// The Redis whose commands are counted: redis://HOST.
    #[arg(long)]
    pub(crate) redis: Option<String>,
    #[arg(long, default_value = "bench")]
    pub(crate) channel: String,
    #[arg(long, default_value_t = 10_000)]
    pub(crate) clients: usize,
    /// What each has to catch up on.
    #[arg(long, default_value_t = 10)]
    pub(crate) messages: u32,
    /// Clients of another channel who stay connected meanwhile.
    #[arg(long, default_value_t = 20)]
    pub(crate) watchers: usize,
    /// Messages a second for those who stay.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Length of the payload, a text.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload_bytes: usize,
    /// How many handshakes may be under way at first; on the way back all are.
    #[arg(long, default_value_t = 128)]
    pub(crate) at_once: usize,
    /// How many loopback addresses to come from.
    #[arg(long, default_value_t = 4)]
    pub(crate) sources: u8,
    /// How long all may take to be back.
    #[arg(long, default_value = "60s")]
    pub(crate) patience: Span,
    #[command(flatten)]
    pub(crate) print: Print,
}

/// `jitter`.
#[derive(Debug, Args)]
pub(crate) struct Jitter {
    /// Where clients connect: ws:, with {channel}.
    #[arg(long)]
    pub(crate) url: String,
    /// Where messages are published: http: (POST) or ws:, with {channel}.
    #[arg(long)]
    pub(crate) publish: String,
    #[arg(long, default_value = "bench")]
    pub(crate) channel: String,
    #[arg(long, default_value_t = 10_000)]
    pub(crate) clients: usize,
    /// How many messages are published.
    #[arg(long, default_value_t = 120)]
    pub(crate) messages: u32,
    /// Messages a second.
    #[arg(long, default_value_t = 2.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// From one cut of a client's link to the next.
    #[arg(long, default_value = "15s")]
    pub(crate) every: Span,
    /// For how long it is cut.
    #[arg(long, default_value = "2s")]
    pub(crate) away: Span,
    /// Cuts all at the same moment, instead of one after the other.
    #[arg(long)]
    pub(crate) together: bool,
    /// Length of the payload, a text.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload_bytes: usize,
    /// How many handshakes may be under way at first.
    #[arg(long, default_value_t = 128)]
    pub(crate) at_once: usize,
    /// How many loopback addresses to come from.
    #[arg(long, default_value_t = 4)]
    pub(crate) sources: u8,
    /// How long the last messages may take.
    #[arg(long, default_value = "20s")]
    pub(crate) patience: Span,
    #[command(flatten)]
    pub(crate) print: Print,
}
