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

/// The channels of a round.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) channels: Vec<Planned>,
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
    pub(crate) fn standard() -> Self {
        let stored = |name: &str, kept| (name.to_owned(), Some(kept));
        let mut all: Vec<_> = (0..4).map(|n| stored(&format!("room:{n}"), ROOM)).collect();
        all.push(stored("tiny:0", TINY));
        all.push(stored("plain", DEFAULT));
        all.push(("live:0".to_owned(), None));
        Self::of(&all)
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
        Self { channels: channels.iter().map(planned).collect() }
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
    pub(crate) fn config() -> String {
        format!(
            "[broker]\nlinger = \"1s\"\necho_interval = \"300ms\"\necho_timeout = \"1500ms\"\n\
             [heartbeat]\nwebsocket = \"3s\"\npong = \"2s\"\nsse = \"2s\"\n\
             [limits]\noutbox_messages = 200\noutbox_bytes = \"256KiB\"\n\
             [drain]\ntime = \"{}s\"\n\
             [namespaces.room]\nhistory_size = {ROOM}\nhistory_ttl = \"10m\"\n\
             [namespaces.tiny]\nhistory_size = {TINY}\n\
             [namespaces.live]\nhistory_size = 0\n",
            DRAIN.as_secs()
        )
    }
}
