//! Namespaces: the rules that a channel's name picks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::Channel;

/// The rules of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRules {
    /// How many messages of a channel are kept; 0: its channels are live.
    pub history_size: usize,
    /// For how long they are kept after the last one.
    pub history_ttl: Duration,
    /// Deliver only the newest message of each event in each interval of this length. Live
    /// channels alone.
    pub conflate: Option<Duration>,
    /// Log every message of the namespace (for finding faults; off by default).
    pub log: bool,
    /// What a subscriber that is too slow costs; on a stored channel always its session.
    pub when_slow: WhenSlow,
}

/// What becomes of a subscriber that does not read as fast as it is written to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenSlow {
    /// Its session is closed as `slow`.
    #[default]
    Close,
    /// It loses the oldest messages of live channels that wait for it, and is told with a `gap`.
    DropOldest,
}

impl Default for NamespaceRules {
    /// Stored: 100 messages, 5 minutes. Safe unless one opts out.
    fn default() -> Self {
        Self {
            history_size: 100,
            history_ttl: Duration::from_secs(300),
            conflate: None,
            log: false,
            when_slow: WhenSlow::Close,
        }
    }
}

impl NamespaceRules {
    /// Keeps nothing.
    #[must_use]
    pub fn live() -> Self {
        Self { history_size: 0, ..Self::default() }
    }

    /// Whether its channels are stored.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        self.history_size > 0
    }

    /// Whether messages may be dropped out of the queue of a subscriber that is too slow.
    #[must_use]
    pub const fn may_drop(&self) -> bool {
        !self.is_stored() && matches!(self.when_slow, WhenSlow::DropOldest)
    }
}

/// The rules of all namespaces: a channel has those of its namespace, or `default`'s where its
/// name has no `:` or its namespace no table of its own. Each namespace has a small number, so that
/// counters can be kept in a table; `default` is 0.
#[derive(Debug, Clone)]
pub struct Namespaces {
    by_name: HashMap<Arc<str>, usize>,
    rules: Vec<(Arc<str>, NamespaceRules)>,
}

impl Namespaces {
    /// The rules of `default` and those of each named namespace.
    pub fn new(
        default: NamespaceRules,
        named: impl IntoIterator<Item = (String, NamespaceRules)>,
    ) -> Self {
        let mut all = Self { by_name: HashMap::new(), rules: vec![("default".into(), default)] };
        for (name, rules) in named {
            let name: Arc<str> = name.into();
            all.by_name.insert(name.clone(), all.rules.len());
            all.rules.push((name, rules));
        }
        all
    }

    /// The number of the channel's namespace.
    #[must_use]
    pub fn index(&self, channel: &Channel) -> usize {
        if self.by_name.is_empty() {
            return 0;
        }
        channel.namespace().and_then(|name| self.by_name.get(name)).copied().unwrap_or(0)
    }

    /// The channel's rules.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> &NamespaceRules {
        self.rules(self.index(channel))
    }

    /// The rules with that number, as [`Namespaces::index`] gave it.
    ///
    /// # Panics
    /// If no namespace has that number.
    #[must_use]
    pub fn rules(&self, index: usize) -> &NamespaceRules {
        &self.rules[index].1
    }

    /// The names in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.rules.iter().map(|(name, _)| &**name)
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::new(NamespaceRules::default(), [])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_picks_its_rules() {
        let all = Namespaces::new(
            NamespaceRules::default(),
            [("room".to_owned(), NamespaceRules { log: true, ..NamespaceRules::live() })],
        );
        let of = |name: &str| all.index(&Channel::new(name).unwrap());
        assert_eq!((of("room:1"), of("room"), of("rooms:1"), of("news")), (1, 0, 0, 0));
        assert!(all.rules(1).log && !all.rules(0).log);
        assert_eq!(all.names().collect::<Vec<_>>(), ["default", "room"]);
    }
}
