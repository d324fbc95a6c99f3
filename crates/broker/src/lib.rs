//! How nodes talk: what a broker must do, the simplest one that does it, and the suite of tests
//! that every broker passes.
//!
//! The hub calls a broker to subscribe this node to channels; whoever publishes calls it with the
//! message; the broker calls the hub back through [`Events`]. No broker knows of clients.

mod claims;
mod memory;
mod reading;
pub mod suite;
mod vital;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;
use tidewire_protocol::{Channel, Code, EntryId, Incarnation, Message};

pub use claims::{Asks, Claim, ClaimError, ClaimReceipt, Claims, Grant, Grants};
pub use memory::MemoryBroker;
pub use reading::{FIRST_PLACE_MS, Query, ReadError, Reading, Verdict};
pub use vital::Vital;

/// Carries messages between nodes.
///
/// Obligations, each held by [`suite`]:
///
/// - What is published after [`Events::subscribed`] for a channel reaches [`Events::message`], or
///   [`Events::gap`] says that something may be missing there.
/// - Messages that one caller publishes to one channel arrive in the order of the calls.
/// - A publish whose receipt is an error reaches nobody, unless it is [`PublishError::Timeout`].
/// - On a stored channel every message carries where it stands ([`Message::stored`]): ids rise within
///   an incarnation, and each names its predecessor. A publish is acknowledged after it was kept.
/// - A messageId that the same publisher sends again within the dedupe time is acknowledged with the
///   first one's place and delivered to nobody; with another body it is refused.
/// - A broken link is mended without help, and told by [`Events::gap`] once per channel and break,
///   before any message that comes after it.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Begins to work, on the runtime that it is called in; called once, before anything else.
    fn start(&self, events: Arc<dyn Events>);

    /// Asks for a channel's messages. It only notes the wish (it is called under the caller's
    /// lock, where the order of wishes is decided): it neither waits nor calls [`Events`].
    fn subscribe(&self, channel: &Channel) -> Confirmation;

    /// Takes the wish back; as [`Broker::subscribe`] it only notes it.
    fn unsubscribe(&self, channel: &Channel);

    /// Publishes a message. Its place among the caller's messages is taken before this returns;
    /// the receipt resolves when the broker has it, within the configured time, 2 s by default.
    /// Whether the channel is stored is decided by the namespaces' rules; the message's own
    /// `stored` is not looked at. Its messageId is remembered for `publisher`.
    fn publish(&self, channel: Channel, message: Message, publisher: Publisher) -> Receipt;

    /// Reads what a stored channel keeps, in one step: nothing is published in between. Writes
    /// nothing.
    fn read(&self, channel: &Channel, query: Query) -> ReadReceipt;

    /// Claims streams of users for this node, where there are others: none where this broker is a
    /// node's own, for then the node knows all of them. Who claims does so at least every few seconds,
    /// else what was granted runs out.
    fn claim(&self, _claims: Claims) -> Option<ClaimReceipt> {
        None
    }

    /// Whether it can do its job now; else the reason, for `/readyz`.
    ///
    /// # Errors
    /// The reason, in words for an operator, without secrets.
    fn ready(&self) -> Result<(), String>;

    /// Ends its tasks and connections, and forgets the [`Events`]. Returns within seconds, whatever
    /// its server does.
    async fn close(&self);
}

/// What becomes of a publish.
pub type Receipt = Pin<Box<dyn Future<Output = Result<Published, PublishError>> + Send>>;

/// What becomes of a read.
pub type ReadReceipt = Pin<Box<dyn Future<Output = Result<Reading, ReadError>> + Send>>;

/// A publish that was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Where it stands, on a stored channel.
    pub place: Option<(Incarnation, EntryId)>,
    /// It was published before with the same messageId.
    pub duplicate: bool,
}

/// Who publishes: a messageId is remembered for its publisher.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Publisher {
    /// Somebody who has not logged in.
    Anonymous,
    /// A user.
    User(Box<str>),
    /// A backend with an API key, by the key's name.
    ApiKey(Box<str>),
}

impl Publisher {
    /// The text that stands for it in the dedupe's keys.
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Self::Anonymous => "a".to_owned(),
            Self::User(user) => format!("u:{user}"),
            Self::ApiKey(name) => format!("k:{name}"),
        }
    }
}

/// When a subscription holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// It holds already.
    Now,
    /// [`Events::subscribed`] or [`Events::refused`] will tell.
    Later,
}

/// Why a publish is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// It certainly was not published; trying again helps. With the reason.
    #[error("not published: {0}")]
    Unavailable(String),
    /// It was not published, and never will be as it is: over a limit. With the broker's words.
    #[error("not published: too large: {0}")]
    TooLarge(String),
    /// It was not published, and never will be as it is: it breaks a rule. With the broker's words.
    #[error("not published: {0}")]
    Invalid(String),
    /// Another body was published with this messageId.
    #[error("another body was published with this messageId")]
    Conflict,
    /// It may or may not have been published.
    #[error("no answer from the broker in time; the outcome is unknown")]
    Timeout,
}

impl PublishError {
    /// The code for the publisher.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unavailable(_) => Code::Unavailable,
            Self::TooLarge(_) => Code::TooLarge,
            Self::Invalid(_) => Code::BadRequest,
            Self::Conflict => Code::Conflict,
            Self::Timeout => Code::Timeout,
        }
    }
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A gateway published it.
    Gateway,
    /// A backend did, straight to the broker.
    Direct,
}

/// What a broker tells its node. Calls that concern one channel come one after the other, from
/// whatever thread; none blocks.
#[async_trait]
pub trait Events: Send + Sync + 'static {
    /// The channel is subscribed: what is published from now on arrives.
    fn subscribed(&self, channel: &Channel);

    /// The channel cannot be subscribed and is no longer wished for.
    fn refused(&self, channel: &Channel, reason: &str);

    /// A message was published. Channels that nobody here wants are ignored.
    fn message(&self, channel: &str, message: Message, origin: Origin);

    /// The link that carries the channel is down: it is not subscribed until [`Events::gap`].
    fn broken(&self, channel: &Channel);

    /// The link was down: messages may be missing here. The channel is subscribed again, and what
    /// follows is whole.
    fn gap(&self, channel: &Channel);

    /// The stored channels of this node of which nothing was heard since this was last asked, as far as
    /// they are whole: each with the last id that the node knows (one before the first where there is
    /// none). Only those of one of so many parts; each channel belongs to one. A node that keeps no
    /// windows has none.
    fn quiet(&self, _part: usize, _parts: usize) -> Vec<(Channel, EntryId)> {
        Vec::new()
    }

    /// The broker has another last id of the channel than this one, which [`Events::quiet`] told. May be
    /// called at any time.
    fn doubted(&self, _channel: &Channel, _known: EntryId) {}

    /// Whether there is room for more messages. A broker that reads ahead of slow lanes would
    /// fill the memory; so it asks first and else waits for [`Events::room`].
    fn has_room(&self) -> bool;

    /// Resolves once there is room.
    async fn room(&self);
}
