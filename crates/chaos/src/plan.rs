//! What a round is made of: its channels with their rules, and how the nodes are configured.

use std::time::Duration;

use tidewire_protocol::{Channel, Cursor};

/// A channel's number in the plan.
pub(crate) type ChannelNo = usize;

/// A channel of the round.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) channel: Channel,
    /// At least so many messages are kept; none on a live channel.
    pub(crate) kept: Option<usize>,
}

/// How Redis is run, and what its nodes make of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One Redis, which may lose what it acknowledged: each of its lives is told as a gap.
    #[default]
    Usual,
    /// Redis writes everything down before it answers, and no fault takes that away: the nodes trust
    /// it (`broker.after_restart = "trust"`), and no gap but over what was trimmed may be told.
    Trust,
    /// A replica is attached, and an ack waits for it (`broker.wait_replicas = 1`).
    Standby,
}

impl Mode {
    /// What the nodes' `[broker]` says besides.
    const fn broker(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::Trust => "after_restart = \"trust\"\n",
            Self::Standby => "wait_replicas = 1\n",
        }
    }

    /// When Redis writes to its disk (`appendfsync`).
    pub(crate) const fn append_fsync(self) -> &'static str {
        match self {
            Self::Trust => "always",
            Self::Usual | Self::Standby => "everysec",
        }
    }

    /// The flags of the command that asks for it.
    pub(crate) const fn flags(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::Trust => " --trust",
            Self::Standby => " --wait-replicas 1",
        }
    }
}

/// The channels of a round, and how Redis is run in it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) channels: Vec<Planned>,
    pub(crate) mode: Mode,
}

/// How long a node that is told to stop takes to send its clients away.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);
/// The contract allows it so much more.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// The most messages that a room keeps: some 15 seconds of the round's traffic.
const ROOM: usize = 400;
/// So few that a client which is away for seconds misses some.
const TINY: usize = 25;
/// What is kept where nobody says otherwise.
const DEFAULT: usize = 100;

impl Plan {
    /// The channels of every round: what keeps much, little, the default, and nothing.
    pub(crate) fn standard(mode: Mode) -> Self {
        let stored = |name: &str, kept| (name.to_owned(), Some(kept));
        let mut all: Vec<_> = (0..4).map(|n| stored(&format!("room:{n}"), ROOM)).collect();
        all.push(stored("tiny:0", TINY));
        all.push(stored("plain", DEFAULT));
        all.push(("live:0".to_owned(), None));
        Self { mode, ..Self::of(&all) }
    }

    /// A plan of these channels.
    ///
    /// # Panics
    /// When a name is none: they are the checker's own.
    #[allow(clippy::expect_used)]
    pub(crate) fn of(channels: &[(String, Option<usize>)]) -> Self {
        let planned = |(name, kept): &(String, Option<usize>)| Planned {
            channel: Channel::new(name).expect("a channel's name"),
            kept: *kept,
        };
        Self { channels: channels.iter().map(planned).collect(), mode: Mode::default() }
    }

    /// The number of a channel by its name.
    pub(crate) fn number(&self, name: &str) -> Option<ChannelNo> {
        self.channels.iter().position(|planned| planned.channel.as_str() == name)
    }

    pub(crate) fn name(&self, channel: ChannelNo) -> &str {
        self.channels[channel].channel.as_str()
    }

    pub(crate) fn is_stored(&self, channel: ChannelNo) -> bool {
        self.channels[channel].kept.is_some()
    }

    /// Reads a cursor of the channel.
    pub(crate) fn cursor(&self, channel: ChannelNo, text: &str) -> anyhow::Result<Cursor> {
        Cursor::parse(text, &self.channels[channel].channel)
            .map_err(|error| anyhow::anyhow!("{text:?} on {}: {error}", self.name(channel)))
    }

    /// The configuration of every node: short times, so that a round holds many faults.
    pub(crate) fn config(mode: Mode) -> String {
        format!(
            "[broker]\n{}linger = \"1s\"\necho_interval = \"300ms\"\necho_timeout = \"1500ms\"\n\
             [heartbeat]\nwebsocket = \"3s\"\npong = \"2s\"\nsse = \"2s\"\n\
             [limits]\noutbox_messages = 200\noutbox_bytes = \"256KiB\"\n\
             [drain]\ntime = \"{}s\"\n\
             [namespaces.room]\nhistory_size = {ROOM}\nhistory_ttl = \"10m\"\n\
             [namespaces.tiny]\nhistory_size = {TINY}\n\
             [namespaces.live]\nhistory_size = 0\n",
            mode.broker(),
            DRAIN.as_secs()
        )
    }
}
