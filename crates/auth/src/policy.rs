//! May they? The namespaces' rules, applied to an identity and a channel.

use std::sync::Arc;

use tidewire_protocol::{Channel, Code, Namespaces};

use crate::api_key::Verb;
use crate::identity::{Identity, Who};

/// Whom a rule lets do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody who is connected.
    Anyone,
    /// Every user who has logged in.
    User,
    /// Whoever's token grants it.
    Granted,
    /// No user. Backends with an API key may all the same.
    Nobody,
}

impl Access {
    /// All of them, from the widest to the narrowest.
    pub const ALL: [Self; 4] = [Self::Anyone, Self::User, Self::Granted, Self::Nobody];

    /// As it is written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::User => "user",
            Self::Granted => "granted",
            Self::Nobody => "nobody",
        }
    }
}

/// The rules of one namespace. They are about users; what an API key may do, its own verbs and
/// patterns say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Who may subscribe.
    pub subscribe: Access,
    /// Who may publish.
    pub publish: Access,
    /// Whether those who may subscribe may also read what is kept from before: history pages and
    /// rewinding. Going on from one's own cursor is always possible.
    pub history: bool,
    /// The names of events that may be published; empty: any.
    pub events: Vec<Box<str>>,
    /// The most bytes of a payload, where that is less than for every message.
    pub message_bytes: Option<usize>,
}

impl Rules {
    /// Those of open mode: everybody may everything.
    #[must_use]
    pub const fn open() -> Self {
        Self {
            subscribe: Access::Anyone,
            publish: Access::Anyone,
            history: true,
            events: Vec::new(),
            message_bytes: None,
        }
    }

    /// Those where logging in is required: what the token grants.
    #[must_use]
    pub const fn granted() -> Self {
        Self {
            subscribe: Access::Granted,
            publish: Access::Granted,
            history: true,
            events: Vec::new(),
            message_bytes: None,
        }
    }
}

/// A refusal: the code and what to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// `unauthorized` where logging in may help, else `forbidden`.
    pub code: Code,
    /// What was refused and why.
    pub message: String,
}

/// All that decides.
#[derive(Debug, Clone)]
pub struct Policy {
    namespaces: Arc<Namespaces>,
    /// By the namespaces' numbers.
    rules: Vec<Rules>,
    /// The namespace of the users' own channels.
    personal: Option<Box<str>>,
    /// Who may publish to these.
    personal_publish: Access,
}

impl Policy {
    /// The rules are given by name, `default` among them or not; `otherwise` holds for a namespace
    /// without any. In the personal namespace `user` each user has a channel, `user:<sub>`, that
    /// nobody else may subscribe to; where it has no rules of its own, nobody may publish there
    /// without a grant, for what is in it is taken to be meant for that user.
    pub fn new(
        namespaces: Arc<Namespaces>,
        mut rules: impl FnMut(&str) -> Option<Rules>,
        otherwise: &Rules,
        personal: Option<Box<str>>,
    ) -> Self {
        let given = personal.as_deref().and_then(&mut rules).map(|own| own.publish);
        let rules: Vec<_> = namespaces
            .names()
            .map(|name| rules(name).unwrap_or_else(|| otherwise.clone()))
            .collect();
        // Without rules of its own it has those of the first, `default`; no wider ones than these.
        let personal_publish = given.unwrap_or(match rules.first().map(|rules| rules.publish) {
            Some(Access::Nobody) => Access::Nobody,
            _ => Access::Granted,
        });
        Self { namespaces, rules, personal, personal_publish }
    }

    /// Where everybody may do everything.
    #[must_use]
    pub fn open(namespaces: Arc<Namespaces>) -> Self {
        Self::new(namespaces, |_| None, &Rules::open(), None)
    }

    /// May they subscribe to the channel?
    ///
    /// # Errors
    /// Says why not.
    pub fn may_subscribe(&self, who: &Identity, channel: &Channel) -> Result<(), Denied> {
        let granted = || who.subscribe.cover(channel);
        match &who.who {
            Who::ApiKey(_, verbs) if verbs.has(Verb::Subscribe) && granted() => Ok(()),
            Who::ApiKey(..) => Err(key_denied(Verb::Subscribe, channel)),
            _ if self.is_personal(channel) => self.personal(who, channel),
            _ => decide(self.of(channel).subscribe, who, granted, Verb::Subscribe, channel),
        }
    }

    /// May they publish to the channel?
    ///
    /// # Errors
    /// Says why not.
    pub fn may_publish(&self, who: &Identity, channel: &Channel) -> Result<(), Denied> {
        let granted = || who.publish.cover(channel);
        match &who.who {
            Who::ApiKey(_, verbs) if verbs.has(Verb::Publish) && granted() => Ok(()),
            Who::ApiKey(..) => Err(key_denied(Verb::Publish, channel)),
            _ => {
                let personal = self.is_personal(channel);
                let access =
                    if personal { self.personal_publish } else { self.of(channel).publish };
                decide(access, who, granted, Verb::Publish, channel)
            }
        }
    }

    /// May they read what the channel keeps from before?
    ///
    /// # Errors
    /// Says why not.
    pub fn may_read(&self, who: &Identity, channel: &Channel) -> Result<(), Denied> {
        match &who.who {
            Who::ApiKey(_, verbs) if verbs.has(Verb::History) && who.subscribe.cover(channel) => {
                Ok(())
            }
            Who::ApiKey(..) => Err(key_denied(Verb::History, channel)),
            _ if !self.of(channel).history => {
                let message = format!("the history of '{channel}' is not for clients");
                Err(Denied { code: Code::Forbidden, message })
            }
            _ => self.may_subscribe(who, channel),
        }
    }

    /// May they use the paths for operators? Where it is open because nobody could log in, whoever
    /// can connect may.
    ///
    /// # Errors
    /// Says why not.
    pub fn may_control(&self, who: &Identity, open: bool) -> Result<(), Denied> {
        match &who.who {
            Who::ApiKey(_, verbs) if verbs.has(Verb::Control) => Ok(()),
            Who::Anonymous | Who::User(_) if open => Ok(()),
            Who::Anonymous => Err(login_needed("this")),
            _ => {
                let message = "this needs an API key with the verb 'control'".to_owned();
                Err(Denied { code: Code::Forbidden, message })
            }
        }
    }

    /// May a message of this name and with so many bytes of payload be published there, whoever
    /// does it?
    ///
    /// # Errors
    /// Says what may.
    pub fn may_carry(&self, channel: &Channel, event: &str, bytes: usize) -> Result<(), Denied> {
        let Rules { events, message_bytes, .. } = self.of(channel);
        if let Some(most) = message_bytes.filter(|most| bytes > *most) {
            let message = format!("on '{channel}' a payload has at most {most} bytes");
            return Err(Denied { code: Code::TooLarge, message });
        }
        if events.is_empty() || events.iter().any(|allowed| **allowed == *event) {
            return Ok(());
        }
        let message = format!("on '{channel}' the event must be one of: {}", events.join(", "));
        Err(Denied { code: Code::Forbidden, message })
    }

    /// The channel of the user's own, where there is a personal namespace and the user's name fits
    /// into a channel's.
    #[must_use]
    pub fn personal_channel(&self, who: &Identity) -> Option<Channel> {
        let (namespace, sub) = (self.personal.as_deref()?, who.user()?);
        Channel::new(&format!("{namespace}:{sub}")).ok()
    }

    fn of(&self, channel: &Channel) -> &Rules {
        &self.rules[self.namespaces.index(channel)]
    }

    fn is_personal(&self, channel: &Channel) -> bool {
        self.personal.is_some() && channel.namespace() == self.personal.as_deref()
    }

    fn personal(&self, who: &Identity, channel: &Channel) -> Result<(), Denied> {
        if who.is_anonymous() {
            return Err(login_needed(&format!("subscribing to '{channel}'")));
        }
        if self.personal_channel(who).is_some_and(|own| own == *channel) {
            return Ok(());
        }
        let message = format!("'{channel}' is another user's own");
        Err(Denied { code: Code::Forbidden, message })
    }
}

/// What the rule says of a user or of nobody in particular.
fn decide(
    rule: Access,
    who: &Identity,
    granted: impl FnOnce() -> bool,
    verb: Verb,
    channel: &Channel,
) -> Result<(), Denied> {
    let doing = match verb {
        Verb::Publish => "publishing",
        Verb::Subscribe | Verb::History | Verb::Control => "subscribing",
    };
    let forbidden = |why: &str| Denied {
        code: Code::Forbidden,
        message: format!("{doing} to '{channel}' is {why}"),
    };
    match rule {
        Access::Anyone => Ok(()),
        Access::Nobody => Err(forbidden("for backends only")),
        Access::User | Access::Granted if who.is_anonymous() => {
            Err(login_needed(&format!("{doing} to '{channel}'")))
        }
        Access::User => Ok(()),
        Access::Granted if granted() => Ok(()),
        Access::Granted => Err(forbidden("not granted by the token")),
    }
}

fn login_needed(what: &str) -> Denied {
    Denied { code: Code::Unauthorized, message: format!("{what} needs a login") }
}

fn key_denied(verb: Verb, channel: &Channel) -> Denied {
    let verb = verb.as_str();
    let message = format!("this API key may not {verb} on '{channel}'");
    Denied { code: Code::Forbidden, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pattern, Patterns, Verbs};
    use tidewire_protocol::NamespaceRules;

    fn identity(who: Who, granted: &[&str]) -> Identity {
        let patterns: Patterns = granted.iter().map(|p| Pattern::plain(p).unwrap()).collect();
        Identity {
            who,
            subscribe: patterns.clone(),
            publish: patterns,
            ..(*Identity::anonymous()).clone()
        }
    }

    fn policy() -> Policy {
        let names = ["any", "user", "granted", "nobody", "me", "now"];
        let named = names.map(|name| (name.to_owned(), NamespaceRules::default()));
        let namespaces = Arc::new(Namespaces::new(NamespaceRules::default(), named));
        let rules = |name: &str| {
            let access = match name {
                "any" => Access::Anyone,
                "user" => Access::User,
                "nobody" => Access::Nobody,
                "now" => {
                    let rules = Rules { history: false, ..Rules::open() };
                    let message_bytes = Some(10);
                    return Some(Rules { events: vec!["tick".into()], message_bytes, ..rules });
                }
                "granted" => Access::Granted,
                _ => return None,
            };
            Some(Rules { subscribe: access, publish: access, ..Rules::granted() })
        };
        Policy::new(namespaces, rules, &Rules::granted(), Some("me".into()))
    }

    fn channel(name: &str) -> Channel {
        Channel::new(name).unwrap()
    }

    /// Every rule, every kind of identity.
    #[test]
    fn the_table_of_rules() {
        let policy = policy();
        let backend = |granted: &[&str]| identity(Who::ApiKey("b".into(), Verbs::ALL), granted);
        let nobody = identity(Who::Anonymous, &[]);
        let alice = identity(Who::User("alice".into()), &[]);
        let granted = identity(Who::User("alice".into()), &["granted:1", "nobody:1", "me:bob"]);
        let (all, some) = (backend(&["*"]), backend(&["any:*"]));
        use Code::{Forbidden, Unauthorized};
        let table: [(&str, &Identity, Option<Code>); 21] = [
            ("any:1", &nobody, None),
            ("any:1", &alice, None),
            ("user:1", &nobody, Some(Unauthorized)),
            ("user:1", &alice, None),
            ("granted:1", &nobody, Some(Unauthorized)),
            ("granted:1", &alice, Some(Forbidden)),
            ("granted:1", &granted, None),
            ("granted:2", &granted, Some(Forbidden)),
            ("other", &granted, Some(Forbidden)),
            ("other", &nobody, Some(Unauthorized)),
            ("nobody:1", &nobody, Some(Forbidden)),
            ("nobody:1", &granted, Some(Forbidden)),
            ("nobody:1", &all, None),
            ("other", &all, None),
            ("any:1", &some, None),
            ("granted:1", &some, Some(Forbidden)),
            ("nobody:1", &some, Some(Forbidden)),
            ("me:alice", &alice, None),
            ("me:bob", &granted, Some(Forbidden)),
            ("me:alice", &nobody, Some(Unauthorized)),
            ("me:alice", &all, None),
        ];
        for (name, who, expected) in table {
            let denied = policy.may_subscribe(who, &channel(name)).err();
            assert_eq!(denied.map(|denied| denied.code), expected, "{name} {who:?}");
            if !name.starts_with("me:") {
                let denied = policy.may_publish(who, &channel(name)).err();
                assert_eq!(denied.map(|denied| denied.code), expected, "{name} {who:?}");
            }
        }
    }

    #[test]
    fn the_personal_channel_is_the_users_own() {
        let policy = policy();
        let own = |who: Who| policy.personal_channel(&identity(who, &[]));
        assert_eq!(own(Who::User("alice".into())), Some(channel("me:alice")));
        assert_eq!(own(Who::User("a b".into())), None);
        assert_eq!(own(Who::Anonymous), None);
        assert_eq!(own(Who::ApiKey("x".into(), Verbs::ALL)), None);
        let alice = identity(Who::User("alice".into()), &[]);
        assert!(policy.may_publish(&alice, &channel("me:alice")).is_err());
        // Publishing there needs a grant also where everything else is open.
        let open = |rules: fn(&str) -> Option<Rules>| {
            Policy::new(Arc::default(), rules, &Rules::open(), Some("me".into()))
        };
        let (nobody, bob) = (Identity::anonymous(), identity(Who::User("bob".into()), &["me:*"]));
        for (rules, may) in [
            ((|_| None) as fn(&str) -> _, [false, false, true]),
            (|name| (name == "me").then(Rules::open), [true, true, true]),
            (|_| Some(Rules { publish: Access::Nobody, ..Rules::open() }), [false; 3]),
        ] {
            let policy = open(rules);
            let may_publish = |who| policy.may_publish(who, &channel("me:alice")).is_ok();
            assert_eq!([&nobody, &alice, &bob].map(may_publish), may);
            assert!(policy.may_publish(&nobody, &channel("news")).is_ok() || !may[2]);
        }
    }

    #[test]
    fn verbs_bind_api_keys() {
        let policy = policy();
        let key = |verbs: &[Verb]| {
            identity(Who::ApiKey("k".into(), verbs.iter().copied().collect()), &["*"])
        };
        let at = channel("any:1");
        assert!(policy.may_publish(&key(&[Verb::Publish]), &at).is_ok());
        assert!(policy.may_publish(&key(&[Verb::Subscribe, Verb::History]), &at).is_err());
        assert!(policy.may_subscribe(&key(&[Verb::Publish]), &at).is_err());
        assert!(policy.may_read(&key(&[Verb::History]), &at).is_ok());
        assert!(policy.may_control(&key(&[Verb::Control]), false).is_ok());
        assert!(policy.may_control(&key(&[Verb::Publish]), true).is_err());
    }

    #[test]
    fn control_history_and_events() {
        let policy = policy();
        let nobody = identity(Who::Anonymous, &[]);
        let alice = identity(Who::User("alice".into()), &["*"]);
        assert!(policy.may_control(&nobody, true).is_ok());
        assert_eq!(policy.may_control(&nobody, false).unwrap_err().code, Code::Unauthorized);
        assert_eq!(policy.may_control(&alice, false).unwrap_err().code, Code::Forbidden);
        assert!(policy.may_subscribe(&alice, &channel("now:1")).is_ok());
        assert!(policy.may_read(&alice, &channel("now:1")).is_err());
        assert!(policy.may_read(&alice, &channel("any:1")).is_ok());
        assert!(policy.may_carry(&channel("now:1"), "tick", 10).is_ok());
        let code =
            |event, bytes| policy.may_carry(&channel("now:1"), event, bytes).unwrap_err().code;
        assert_eq!((code("tick", 11), code("tock", 1)), (Code::TooLarge, Code::Forbidden));
        assert!(policy.may_carry(&channel("any:1"), "tock", 99).is_ok());
    }
}
