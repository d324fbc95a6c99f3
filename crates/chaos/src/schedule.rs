//! What goes wrong and when, drawn from a seed: the same seed, the same schedule.
//!
//! Two rows of faults run beside each other, one on Redis and the links to it, one on the nodes and
//! the links to them, so that faults meet. Each row is a deck of cards that is shuffled whenever it
//! is empty: every kind comes before one comes twice.

use std::fmt;
use std::time::Duration;

use crate::plan::Mode;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A node's links to Redis are reset, and refused for a while.
    LinkCut,
    /// They are reset once.
    LinkReset,
    /// Nothing passes on them, in either direction.
    LinkStall,
    /// Redis hears nothing of the node.
    LinkHalfUp,
    /// The node hears nothing of Redis.
    LinkHalfDown,
    /// All links to Redis are late.
    LinkDelay,
    /// `CLIENT KILL TYPE pubsub`.
    PubSubKill,
    /// `CLIENT PAUSE`.
    ClientPause,
    /// `DEBUG SLEEP`.
    DebugSleep,
    /// Redis is stopped (SIGSTOP), and goes on.
    RedisStop,
    /// A burst against a small output buffer limit cuts the subscribers off.
    OutputLimit,
    /// A burst larger than what may wait for a client.
    Burst,
    /// `FUNCTION FLUSH`.
    FunctionFlush,
    /// Redis is killed, and comes back with all that it acknowledged.
    RedisRestart,
    /// Redis is killed, and comes back with nothing.
    RedisEmpty,
    /// Redis is killed, and comes back as it was a while ago.
    RedisRollback,
    /// Redis is killed, and a replica takes its place whose clock runs behind; then it is back, as
    /// it was when it was killed.
    Promotion,
    /// `FLUSHALL`.
    Flush,
    /// A node is killed.
    NodeKill,
    /// A node is stopped (SIGSTOP), and goes on.
    NodeStop,
    /// A node is told to stop (SIGTERM).
    NodeTerm,
    /// The clients of a node are cut off, and refused for a while.
    ClientsCut,
    /// They are cut off once.
    ClientsReset,
    /// Nothing passes between a node and its clients.
    ClientsStall,
    /// The clients hear nothing of the node.
    ClientsHalf,
    /// Everything between a node and its clients is late.
    ClientsDelay,
    /// A third of the readers stop reading.
    ReadersPause,
    /// The replica whose word acks wait for stops, and goes on.
    StandbyStop,
    /// It is killed, and another one comes.
    StandbyKill,
    /// Redis is killed, and the replica takes its place for good.
    Takeover,
}

use Kind::{
    Burst, ClientPause, ClientsCut, ClientsDelay, ClientsHalf, ClientsReset, ClientsStall,
    DebugSleep, Flush, FunctionFlush, LinkCut, LinkDelay, LinkHalfDown, LinkHalfUp, LinkReset,
    LinkStall, NodeKill, NodeStop, NodeTerm, OutputLimit, Promotion, PubSubKill, ReadersPause,
    RedisEmpty, RedisRestart, RedisRollback, RedisStop, StandbyKill, StandbyStop, Takeover,
};

/// The cards of Redis and the links to it.
const STORAGE: [Kind; 21] = [
    LinkCut,
    LinkCut,
    LinkReset,
    LinkStall,
    LinkStall,
    LinkHalfUp,
    LinkHalfDown,
    LinkDelay,
    PubSubKill,
    PubSubKill,
    ClientPause,
    DebugSleep,
    RedisStop,
    OutputLimit,
    Burst,
    FunctionFlush,
    RedisRestart,
    RedisEmpty,
    RedisRollback,
    Promotion,
    Flush,
];
/// The cards of a Redis that loses nothing.
const TRUSTED: [Kind; 16] = [
    LinkCut,
    LinkReset,
    LinkStall,
    LinkStall,
    LinkHalfUp,
    LinkHalfDown,
    LinkDelay,
    PubSubKill,
    ClientPause,
    RedisStop,
    OutputLimit,
    Burst,
    FunctionFlush,
    RedisRestart,
    RedisRestart,
    RedisRestart,
];
/// The cards of a Redis with a replica whose word acks wait for.
const REPLICATED: [Kind; 14] = [
    LinkCut,
    LinkStall,
    LinkHalfUp,
    LinkHalfDown,
    PubSubKill,
    ClientPause,
    DebugSleep,
    FunctionFlush,
    StandbyStop,
    StandbyStop,
    StandbyKill,
    Takeover,
    Takeover,
    Takeover,
];
/// The cards of the nodes and the links to them.
const SERVING: [Kind; 12] = [
    NodeKill,
    NodeKill,
    NodeStop,
    NodeStop,
    NodeTerm,
    ClientsCut,
    ClientsReset,
    ClientsStall,
    ClientsHalf,
    ClientsDelay,
    ReadersPause,
    ReadersPause,
];

impl Kind {
    /// How many new lives of the data it begins: what Redis acknowledged may be lost, or cannot be
    /// known not to be. At a promotion one with the first replica, whose coming changes the
    /// master's `master_replid` (`changeReplicationId` in Redis's replication.c: there was no
    /// backlog), one with its promotion, and one with the old master's return.
    pub(crate) const fn lives(self) -> usize {
        match self {
            RedisRestart | RedisEmpty | RedisRollback | Flush | Takeover => 1,
            Promotion => 3,
            _ => 0,
        }
    }

    /// How long it may last, in ms.
    const fn span(self) -> (u64, u64) {
        match self {
            LinkReset | PubSubKill | FunctionFlush | Flush | ClientsReset => (0, 1),
            OutputLimit | Burst => (300, 1_500),
            RedisRestart | RedisEmpty | RedisRollback => (0, 2_500),
            ClientPause | DebugSleep | RedisStop => (300, 3_000),
            NodeTerm => (0, 500),
            _ => (200, 5_000),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `NodeKill` as `node_kill`.
        for (at, letter) in format!("{self:?}").char_indices() {
            if letter.is_uppercase() && at > 0 {
                f.write_str("_")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// The node that it hits, if it hits one.
    pub(crate) node: usize,
    /// How long it lasts.
    pub(crate) hold: Duration,
    /// The rest until the next one.
    pub(crate) rest: Duration,
}

/// An endless row of faults.
pub(crate) struct Row {
    cards: Vec<Kind>,
    deck: Vec<Kind>,
    nodes: usize,
    rng: fastrand::Rng,
}

impl Row {
    /// The row of Redis and the links to it.
    pub(crate) fn storage(seed: u64, nodes: usize, mode: Mode) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let cards = match mode {
            Mode::Usual => STORAGE.to_vec(),
            Mode::Trust => TRUSTED.to_vec(),
            Mode::Standby => REPLICATED.to_vec(),
        };
        Self { cards, deck: vec![], nodes, rng }
    }

    /// The row of the nodes and the links to them.
    pub(crate) fn serving(seed: u64, nodes: usize) -> Self {
        let rng = fastrand::Rng::with_seed(seed ^ 0x5e41);
        Self { cards: SERVING.to_vec(), deck: vec![], nodes, rng }
    }

    /// Only faults whose names are among these, if any are.
    pub(crate) fn only(mut self, names: &[String]) -> Self {
        self.cards.retain(|kind| names.is_empty() || names.contains(&kind.to_string()));
        self
    }
}

impl Iterator for Row {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.deck.is_empty() {
            self.deck.extend_from_slice(&self.cards);
            self.rng.shuffle(&mut self.deck);
        }
        let kind = self.deck.pop()?;
        let (from, to) = kind.span();
        let hold = Duration::from_millis(self.rng.u64(from..to));
        // Often just after one another, at times with room to recover.
        let most = if self.rng.bool() { 400 } else { 2_500 };
        let rest = Duration::from_millis(self.rng.u64(50..most));
        Some(Fault { kind, node: self.rng.usize(..self.nodes), hold, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_is_a_schedule() {
        let draw = |seed| Row::storage(seed, 3, Mode::Usual).take(50).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|fault| fault.node < 3));
    }

    #[test]
    fn every_kind_comes_before_a_deck_is_shuffled_anew() {
        for (mode, cards) in [
            (Mode::Usual, &STORAGE[..]),
            (Mode::Trust, &TRUSTED[..]),
            (Mode::Standby, &REPLICATED[..]),
        ] {
            let drawn = Row::storage(1, 3, mode).take(cards.len()).map(|fault| fault.kind);
            let kinds: BTreeSet<_> = cards.iter().copied().collect();
            assert_eq!(drawn.collect::<BTreeSet<_>>(), kinds);
        }
        let kinds: BTreeSet<_> = Row::serving(1, 3).take(SERVING.len()).map(|f| f.kind).collect();
        assert_eq!(kinds, SERVING.into_iter().collect());
        assert_eq!(NodeKill.to_string(), "node_kill");
    }

    #[test]
    fn where_nothing_is_lost_no_life_begins_but_by_a_restart() {
        let begins = TRUSTED.into_iter().filter(|kind| kind.lives() > 0);
        assert!(begins.into_iter().all(|kind| kind == RedisRestart));
    }
}
