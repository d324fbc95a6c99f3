//! From what Redis delivered to what the node is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::Counter;
use parking_lot::Mutex;
use tidewire_broker::{Events, Origin};
use tidewire_protocol::{
    Code, MARKER, Message, Timestamp, decode_envelope, decode_named, is_named, is_stored, plain,
};

use crate::names::Names;
use crate::stored;
use crate::wire::reason;

/// At most one line about refused bodies in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Understands the bodies of one link. A body that it does not wholly understand is refused:
/// counted, logged at a bounded rate, never delivered (but what is stored is; see [`stored`]).
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) names: Names,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) refusals: Arc<Refusals>,
    /// The largest body of a plain `PUBLISH`.
    pub(crate) message_bytes: usize,
}

impl Delivery {
    /// Hands a message on. The body is copied, so that a message which is kept for long does not
    /// keep the whole buffer that it came in.
    pub(crate) fn message(&self, name: &[u8], body: &[u8]) {
        let Some(channel) = self.names.channel(name) else { return };
        let body = Bytes::copy_from_slice(body);
        match self.read(channel, &body) {
            Ok((message, origin)) => self.events.message(channel, message, origin),
            Err((kind, why)) => self.refusals.note(kind, channel, &why),
        }
    }

    /// A body that was passed over.
    pub(crate) fn too_large(&self, name: &[u8], length: usize) {
        let Some(channel) = self.names.channel(name) else { return };
        self.refusals.note(Kind::TooLarge, channel, &format!("{length} bytes"));
    }

    fn read(&self, channel: &str, body: &Bytes) -> Result<(Message, Origin), (Kind, String)> {
        if is_stored(body) {
            let read = stored::read(body).map_err(|e| (Kind::Envelope, e.to_string()))?;
            if let Some(fault) = read.fault {
                self.refusals.note(Kind::Stored, channel, &fault);
            }
            return Ok((read.message, read.origin));
        }
        if is_named(body) {
            let (id, body) = decode_named(body).map_err(|e| (Kind::Envelope, e.to_string()))?;
            let message = Message { message_id: Some(id), ..self.read_plain(&body)? };
            return Ok((message, Origin::Direct));
        }
        if body.first() == Some(&MARKER) {
            // Its size was the publishing gateway's affair.
            let message = decode_envelope(body).map_err(|e| (Kind::Envelope, e.to_string()))?;
            return Ok((message, Origin::Gateway));
        }
        Ok((self.read_plain(body)?, Origin::Direct))
    }

    fn read_plain(&self, body: &Bytes) -> Result<Message, (Kind, String)> {
        let publication = plain(body, self.message_bytes).map_err(|error| {
            let kind = if error.code == Code::TooLarge { Kind::TooLarge } else { Kind::Plain };
            (kind, error.message)
        })?;
        Ok(Message {
            event: publication.event,
            payload: publication.payload,
            message_id: publication.message_id,
            timestamp: Timestamp::now(),
            from: None,
            exclude: publication.exclude,
            stored: None,
        })
    }
}

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    TooLarge,
    /// Looks like a gateway's frame and is none, or one of a newer gateway.
    Envelope,
    /// Looks like a message and is none.
    Plain,
    /// A stored one that is not understood. It is delivered all the same, as it stands.
    Stored,
}

/// Counts refused bodies and logs some.
pub(crate) struct Refusals {
    too_large: Counter,
    envelope: Counter,
    plain: Counter,
    stored: Counter,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    last: Option<Instant>,
    unsaid: u64,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        let counter = |reason: &'static str| metrics::counter!("tidewire_broker_rejected_total", "reason" => reason);
        Self {
            too_large: counter("too_large"),
            envelope: counter("envelope"),
            plain: counter("plain"),
            stored: counter("stored"),
            log: Mutex::default(),
        }
    }

    pub(crate) fn note(&self, kind: Kind, channel: &str, why: &str) {
        let counter = match kind {
            Kind::TooLarge => &self.too_large,
            Kind::Envelope => &self.envelope,
            Kind::Plain => &self.plain,
            Kind::Stored => &self.stored,
        };
        counter.increment(1);
        let unsaid = {
            let mut log = self.log.lock();
            if log.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
                log.unsaid += 1;
                return;
            }
            log.last = Some(Instant::now());
            std::mem::take(&mut log.unsaid)
        };
        // Names come from whoever may publish, and the reason may quote a member of the body.
        let (channel, why) = (reason(channel.as_bytes()), reason(why.as_bytes()));
        tracing::warn!(channel, why, unsaid, "a body published in Redis is not understood");
    }
}
