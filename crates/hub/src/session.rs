//! What the lane asks of a session, and what it gives it in return.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tidewire_protocol::{Channel, Code, Cursor, SessionId};

use crate::inbox::{ChannelKey, Ticket};
use crate::outbox::Outbox;
use crate::stored::Begin;
use crate::sweep::Beat;
use crate::window::Gap;
use crate::wire::{Encoded, Form};

/// A client's connection, as the lane sees it. Its methods are called on the lane's thread and, but
/// for [`Session::beat`], do not call the lane back.
pub trait Session {
    /// Its name.
    fn id(&self) -> SessionId;
    /// The bytes it wants.
    fn form(&self) -> Form;
    /// Where they go.
    fn outbox(&self) -> &Outbox;
    /// The subscription holds; what is sent from now on follows. On a stored channel with how it
    /// begins, whose backlog the lane sends.
    fn subscribed(&self, channel: &Channel, begin: Option<&Begin>);
    /// The subscription is at an end, or never began. The lane has forgotten it.
    fn refused(&self, channel: &Channel, code: Code);
    /// Messages may be missing here; on a stored channel, those between two places.
    fn gap(&self, channel: &Channel, gap: Option<&Gap>);
    /// Whether a backlog may be sent now; else it is behind, at the place where it begins.
    fn takes_backlog(&self) -> bool;
    /// The backlog did not fit into the outbox: the session goes on from this place with
    /// [`crate::Lane::go_on`] once that is empty.
    fn is_behind(&self, channel: &Channel, place: Cursor);
    /// Whether it follows the place of each message that it is sent.
    fn tracks(&self) -> bool {
        false
    }
    /// A message is about to be sent to a session that tracks: what goes before it.
    fn before(&self, _message: &Encoded) -> Option<BytesMut> {
        None
    }
    /// A message that is not for it was left out.
    fn passed_over(&self, message: &Encoded);
    /// The sweep passes by.
    fn beat(&self, beat: Beat);
    /// Something that it holds may have been taken back, or be asked for: it looks.
    fn reconsider(self: Rc<Self>) {}
    /// The node stops: come back in so many milliseconds. The session is ended then by
    /// [`Session::end`].
    fn shutdown(&self, reconnect: Duration);
    /// The node stops now.
    fn end(&self);
}

/// A session's place in its lane.
#[derive(Debug)]
pub struct SessionSlot(pub(crate) usize);

impl SessionSlot {
    /// Its number, for [`crate::Lane::reconsider`]. Once the session has left, it may be another's.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.0
    }
}

/// A session's subscription to a channel.
#[derive(Debug)]
pub struct Subscription {
    /// The channel.
    pub channel: Channel,
    pub(crate) key: ChannelKey,
    /// Its slot when it began; see [`crate::members::Members`].
    pub(crate) member: usize,
    pub(crate) ticket: Ticket,
}
