//! Stored messages: from the frame that the function made to a message.

use bytes::Bytes;
use tidewire_broker::Origin;
use tidewire_protocol::{
    EnvelopeError, Event, MARKER, Message, Payload, Timestamp, decode_envelope, decode_stored,
    plain,
};

/// A stored message.
pub(crate) struct StoredMessage {
    pub(crate) message: Message,
    pub(crate) origin: Origin,
    /// What is wrong with the body, which is then itself the payload.
    pub(crate) fault: Option<String>,
}

/// Reads a frame. A body that cannot be understood is the payload as it stands: the function lets none
/// through, but leaving one out would be a hole.
///
/// # Errors
/// When it is no such frame.
pub(crate) fn read(frame: &Bytes) -> Result<StoredMessage, EnvelopeError> {
    let frame = decode_stored(frame)?;
    let body = &frame.body;
    let (outcome, origin) = if body.first() == Some(&MARKER) {
        (decode_envelope(body).map_err(|error| error.to_string()), Origin::Gateway)
    } else {
        (of_backend(body), Origin::Direct)
    };
    let (mut message, fault) = match outcome {
        Ok(message) => (message, None),
        Err(fault) => (as_payload(body), Some(fault)),
    };
    if frame.message_id.is_some() {
        message.message_id = frame.message_id;
    }
    message.timestamp = Timestamp::from_millis(frame.stored.id.ms);
    message.stored = Some(frame.stored);
    Ok(StoredMessage { message, origin, fault })
}

fn of_backend(body: &Bytes) -> Result<Message, String> {
    // The function has checked its size, by the rules that are in force.
    let publication = plain(body, usize::MAX).map_err(|error| error.message)?;
    Ok(Message {
        event: publication.event,
        message_id: publication.message_id,
        exclude: publication.exclude,
        ..bare(publication.payload)
    })
}

fn as_payload(body: &Bytes) -> Message {
    bare(match std::str::from_utf8(body) {
        Ok(text) => Payload::text(text),
        Err(_) => Payload::Binary(body.clone()),
    })
}

fn bare(payload: Payload) -> Message {
    Message {
        event: Event::default(),
        payload,
        message_id: None,
        timestamp: Timestamp::from_millis(0),
        from: None,
        exclude: None,
        stored: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(head: &[u8], body: &[u8]) -> StoredMessage {
        let mark = b"\xc1\x01\x8000000000000000ff 7-1 6-0 ";
        read(&[mark, head, body].concat().into()).ok().unwrap()
    }

    #[test]
    fn what_backends_publish() {
        let given = stored(b"2\nm1", br#"{"payload":1,"event":"e","messageId":"own"}"#);
        assert_eq!((given.origin, given.fault), (Origin::Direct, None));
        assert_eq!(given.message.event.as_str(), "e");
        assert_eq!(given.message.message_id.unwrap().as_str(), "m1");
        assert_eq!(given.message.timestamp.as_millis(), 7);
        let own = stored(b"0\n", br#"{"payload":1,"messageId":"own"}"#).message;
        assert_eq!(own.message_id.unwrap().as_str(), "own");
    }

    #[test]
    fn what_cannot_be_understood_is_the_payload() {
        let text = stored(b"0\n", br#"{"payload":1,"event":7}"#);
        assert!(text.fault.is_some());
        assert_eq!(text.message.payload, Payload::text(r#"{"payload":1,"event":7}"#));
        let bytes = stored(b"0\n", b"\xc1\x01nonsense");
        assert!(bytes.fault.is_some());
        assert_eq!(bytes.message.payload, Payload::Binary(Bytes::from_static(b"\xc1\x01nonsense")));
    }
}
