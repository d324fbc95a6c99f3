//! Who gets a message on this node.
//!
//! The hub knows which lanes want which channel and asks the broker for the channels; a lane is a
//! thread that owns sessions and writes to them; an outbox is what one session has still to write.
//! The gateway puts sessions in and takes them out; the broker hands messages in. Nothing here
//! knows of HTTP or Redis.

mod fanout;
mod hub;
mod inbox;
mod lane;
mod lanes;
mod members;
mod metrics;
mod outbox;
mod pressure;
mod session;
mod socket;
mod stored;
mod sweep;
mod window;
mod wire;

pub use hub::{Hub, HubSettings, Listed};
pub use inbox::Ticket;
pub use lane::{Lane, LaneSettings};
pub use lanes::{LaneHandle, Lanes};
pub use outbox::{Failure, Outbox, OutboxLimits, Progress, Sink};
pub use pressure::{Unread, UnreadNote, Waits};
pub use session::{Session, SessionSlot, Subscription};
pub use socket::{Socket, TlsSocket};
pub use stored::{Action, Begin, Start, StoredChannel};
pub use sweep::Beat;
pub use window::{Gap, Offered, Repaired, Window, WindowLimits};
pub use wire::{Encoded, Form, Frames, Transport, encode_reply};
