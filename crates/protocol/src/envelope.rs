//! What gateways and the Redis function put on Pub/Sub: frames that begin with [`MARKER`].
//!
//! A **live** message, and the body of a stored one that a gateway published:
//!
//! ```text
//! 0      0xC1, in no UTF-8 text and unused in MessagePack
//! 1      version, 1
//! 2      flags: 1 binary payload, 2 messageId, 4 user, 8 session, 16 exclude
//! 3      timestamp, ms since 1970, 8 bytes, big endian
//! 11     event: length (1 byte; 0 for `message`), bytes
//!        messageId, if flagged: length (1 byte), bytes
//!        user, if flagged: length (2 bytes, big endian), bytes
//!        session, if flagged: 16 bytes
//!        exclude, if flagged: 16 bytes
//!        payload: the rest
//! ```
//!
//! A **stored** message, as the function announces it: the same first two bytes, flags 128, then a
//! line of text and the body as it was published, plain or a frame as above:
//!
//! ```text
//! 0xC1 0x01 0x80 <incarnation, 16 hex digits> <id> <prev, or -> <length of messageId> LF
//! messageId, if its length is not 0
//! body: the rest
//! ```
//!
//! A **named** message is a live one that a backend published through the function with a messageId
//! besides the body: flags 64, the messageId's length (1 byte), the messageId, the plain body.

use bytes::Bytes;
use thiserror::Error;

use crate::fields::check_json;
use crate::{
    EntryId, Event, Incarnation, Message, MessageId, Payload, Sender, SessionId, Stored, Timestamp,
};

/// The first byte of every frame that a gateway publishes.
pub const MARKER: u8 = 0xC1;
const VERSION: u8 = 1;

const BINARY: u8 = 1;
const MESSAGE_ID: u8 = 2;
const USER: u8 = 4;
const SESSION: u8 = 8;
const EXCLUDE: u8 = 16;
const KNOWN: u8 = BINARY | MESSAGE_ID | USER | SESSION | EXCLUDE;

/// The flag of a stored message's frame; none of the others goes with it.
const STORED: u8 = 128;
/// The flag of a named message's frame; none of the others goes with it.
const NAMED: u8 = 64;
/// More than the longest line has.
const MAX_LINE: usize = 128;

/// A stored message's frame, its body not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFrame {
    /// Where it stands.
    pub stored: Stored,
    /// The id that the publisher gave besides the body.
    pub message_id: Option<MessageId>,
    /// What was published.
    pub body: Bytes,
}

/// Whether bytes are a stored message's frame.
#[must_use]
pub fn is_stored(frame: &[u8]) -> bool {
    frame.starts_with(&[MARKER, VERSION, STORED])
}

/// Reads a stored message's frame.
///
/// # Errors
/// Says what is wrong with it.
pub fn decode_stored(frame: &Bytes) -> Result<StoredFrame, EnvelopeError> {
    if !is_stored(frame) {
        return Err(EnvelopeError::Version);
    }
    let mut rest = &frame[3..];
    let end = rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n');
    let line = take_text(&mut rest, end.ok_or(EnvelopeError::Short)?, "line")?;
    take(&mut rest, 1)?;
    let mut words = line.split(' ');
    let mut word = |what| words.next().ok_or(EnvelopeError::Invalid(what));
    let incarnation =
        Incarnation::parse(word("incarnation")?).ok_or(EnvelopeError::Invalid("incarnation"))?;
    let id = EntryId::parse(word("id")?).ok_or(EnvelopeError::Invalid("id"))?;
    let prev = match word("link")? {
        "-" => None,
        prev => Some(EntryId::parse(prev).ok_or(EnvelopeError::Invalid("link"))?),
    };
    let length = word("messageId")?.parse().map_err(|_| EnvelopeError::Invalid("messageId"))?;
    let message_id = match length {
        0 => None,
        length => {
            let id = MessageId::new(take_text(&mut rest, length, "messageId")?);
            Some(id.map_err(|_| EnvelopeError::Invalid("messageId"))?)
        }
    };
    let stored = Stored { incarnation, id, prev };
    Ok(StoredFrame { stored, message_id, body: frame.slice_ref(rest) })
}

/// Whether bytes are a named message's frame.
#[must_use]
pub fn is_named(frame: &[u8]) -> bool {
    frame.starts_with(&[MARKER, VERSION, NAMED])
}

/// Reads a named message's frame: the messageId and the plain body, which is not yet read.
///
/// # Errors
/// Says what is wrong with it.
pub fn decode_named(frame: &Bytes) -> Result<(MessageId, Bytes), EnvelopeError> {
    if !is_named(frame) {
        return Err(EnvelopeError::Version);
    }
    let mut rest = &frame[3..];
    let id = MessageId::new(take_short(&mut rest, "messageId")?);
    let id = id.map_err(|_| EnvelopeError::Invalid("messageId"))?;
    Ok((id, frame.slice_ref(rest)))
}

/// Why bytes that begin with [`MARKER`] are no frame. Nothing of it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Written by a newer gateway.
    #[error("a frame of an unknown version or with unknown flags")]
    Version,
    /// Cut off.
    #[error("a frame that is cut off")]
    Short,
    /// A member that breaks its rule.
    #[error("a frame with an invalid {0}")]
    Invalid(&'static str),
}

/// Writes the frame.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let (payload, binary) = match &message.payload {
        Payload::Json(bytes) => (bytes, 0),
        Payload::Binary(bytes) => (bytes, BINARY),
    };
    let user = message.from.as_ref().and_then(|from| from.user.as_deref());
    let session = message.from.as_ref().and_then(|from| from.session);
    let flag = |is: bool, bit: u8| if is { bit } else { 0 };
    let mut out = Vec::with_capacity(payload.len() + 192);
    out.push(MARKER);
    out.push(VERSION);
    out.push(
        binary
            | flag(message.message_id.is_some(), MESSAGE_ID)
            | flag(user.is_some(), USER)
            | flag(session.is_some(), SESSION)
            | flag(message.exclude.is_some(), EXCLUDE),
    );
    out.extend_from_slice(&message.timestamp.as_millis().to_be_bytes());
    let event = if message.event.is_default() { "" } else { message.event.as_str() };
    write_short(event, &mut out);
    if let Some(id) = &message.message_id {
        write_short(id.as_str(), &mut out);
    }
    if let Some(user) = user {
        let user = cut(user, usize::from(u16::MAX));
        // Cut to what the length's two bytes can say.
        out.extend_from_slice(&u16::try_from(user.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(user.as_bytes());
    }
    if let Some(session) = session {
        out.extend_from_slice(&session.to_bytes());
    }
    if let Some(exclude) = message.exclude {
        out.extend_from_slice(&exclude.to_bytes());
    }
    out.extend_from_slice(payload);
    out
}

/// Reads a frame. The payload shares its bytes. It is checked like a stranger's: who may publish
/// to Redis may also write such frames, and a payload that is no JSON would break every client's.
///
/// # Errors
/// Says what is wrong with it.
pub fn decode(frame: &Bytes) -> Result<Message, EnvelopeError> {
    let mut rest = &frame[..];
    let [marker, version, flags] = take_array(&mut rest)?;
    if marker != MARKER || version != VERSION || flags & !KNOWN != 0 {
        return Err(EnvelopeError::Version);
    }
    let timestamp = Timestamp::from_millis(u64::from_be_bytes(take_array(&mut rest)?));
    let event = match take_short(&mut rest, "event")? {
        "" => Event::default(),
        name => Event::new(name).map_err(|_| EnvelopeError::Invalid("event"))?,
    };
    let message_id = if flags & MESSAGE_ID == 0 {
        None
    } else {
        let id = MessageId::new(take_short(&mut rest, "messageId")?);
        Some(id.map_err(|_| EnvelopeError::Invalid("messageId"))?)
    };
    let user = if flags & USER == 0 {
        None
    } else {
        let length = usize::from(u16::from_be_bytes(take_array(&mut rest)?));
        Some(take_text(&mut rest, length, "user")?)
    };
    let session = take_session(&mut rest, flags & SESSION != 0)?;
    let has_sender = user.is_some() || session.is_some();
    let from = has_sender.then(|| Sender { user: user.map(Into::into), session });
    let exclude = take_session(&mut rest, flags & EXCLUDE != 0)?;
    let payload = frame.slice_ref(rest);
    let payload = if flags & BINARY == 0 {
        let text = simdutf8::basic::from_utf8(&payload);
        let text = text.map_err(|_| EnvelopeError::Invalid("payload"))?;
        check_json(text).map_err(|_| EnvelopeError::Invalid("payload"))?;
        Payload::Json(payload)
    } else {
        Payload::Binary(payload)
    };
    Ok(Message { event, payload, message_id, timestamp, from, exclude, stored: None })
}

fn write_short(text: &str, out: &mut Vec<u8>) {
    let text = cut(text, usize::from(u8::MAX));
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

/// The text, cut at a character's boundary. Names and ids are shorter by their own rules.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], EnvelopeError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(EnvelopeError::Short)?;
    *rest = left;
    Ok(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], EnvelopeError> {
    take(rest, N)?.try_into().map_err(|_| EnvelopeError::Short)
}

fn take_short<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a str, EnvelopeError> {
    let [length] = take_array(rest)?;
    take_text(rest, usize::from(length), what)
}

fn take_text<'a>(
    rest: &mut &'a [u8],
    length: usize,
    what: &'static str,
) -> Result<&'a str, EnvelopeError> {
    std::str::from_utf8(take(rest, length)?).map_err(|_| EnvelopeError::Invalid(what))
}

fn take_session(rest: &mut &[u8], is_there: bool) -> Result<Option<SessionId>, EnvelopeError> {
    is_there.then(|| take_array(rest).map(SessionId::from_bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages() -> impl Strategy<Value = Message> {
        let payload = prop_oneof![
            any::<Vec<u8>>().prop_map(|bytes| Payload::Binary(bytes.into())),
            any::<String>().prop_map(|text| Payload::text(&text)),
        ];
        let id = prop::option::of("[a-z0-9-]{1,128}");
        let from = prop::option::of(any::<(Option<String>, Option<[u8; 16]>)>());
        (payload, "[a-z_]{1,64}", id, 0..253_402_300_799_999_u64, from, any::<Option<[u8; 16]>>())
            .prop_map(|(payload, event, id, time, from, exclude)| Message {
                event: Event::new(&event).unwrap(),
                payload,
                message_id: id.map(|id| MessageId::new(&id).unwrap()),
                timestamp: Timestamp::from_millis(time),
                from: from.map(|(user, session)| Sender {
                    // One of them is always there.
                    session: session
                        .or(user.is_none().then_some([7; 16]))
                        .map(SessionId::from_bytes),
                    user: user.map(Into::into),
                }),
                exclude: exclude.map(SessionId::from_bytes),
                stored: None,
            })
    }

    proptest! {
        #[test]
        fn a_frame_is_read_back(message in messages()) {
            let frame = Bytes::from(encode(&message));
            prop_assert_eq!(decode(&frame), Ok(message));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in any::<Vec<u8>>()) {
            bytes.splice(..0, [MARKER, VERSION]);
            let _ = decode(&bytes.into());
        }
    }

    #[test]
    fn a_payload_that_is_no_json_is_refused() {
        let message = Message {
            event: Event::default(),
            payload: Payload::Json(Bytes::from_static(b"1,\"channel\":\"other\"")),
            message_id: None,
            timestamp: Timestamp::from_millis(0),
            from: None,
            exclude: None,
            stored: None,
        };
        assert_eq!(decode(&encode(&message).into()), Err(EnvelopeError::Invalid("payload")));
    }

    #[test]
    fn what_a_newer_gateway_wrote_is_refused() {
        for frame in [&[MARKER, 2, 0][..], &[MARKER, VERSION, 128]] {
            assert_eq!(decode(&Bytes::copy_from_slice(frame)), Err(EnvelopeError::Version));
        }
        assert_eq!(decode(&Bytes::from_static(&[MARKER, VERSION])), Err(EnvelopeError::Short));
    }

    #[test]
    fn a_named_frame_is_read() {
        let frame = Bytes::from_static(b"\xc1\x01\x40\x02m1hello");
        let expected = (MessageId::new("m1").unwrap(), Bytes::from_static(b"hello"));
        assert_eq!(decode_named(&frame), Ok(expected));
        assert_eq!(decode(&frame), Err(EnvelopeError::Version));
        for bad in
            [&b"\xc1\x01\x40"[..], b"\xc1\x01\x40\x09m1", b"\xc1\x01\x40\x00", b"\xc1\x01\x41"]
        {
            assert!(decode_named(&Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stored_frame_is_read() {
        let frame = b"\xc1\x01\x8000000000000000ff 7-1 6-0 2\nm1{\"payload\":1}";
        let id = EntryId { ms: 7, seq: 1 };
        let prev = Some(EntryId { ms: 6, seq: 0 });
        let expected = StoredFrame {
            stored: Stored { incarnation: Incarnation::new(255), id, prev },
            message_id: MessageId::new("m1").ok(),
            body: Bytes::from_static(b"{\"payload\":1}"),
        };
        assert_eq!(decode_stored(&Bytes::from_static(frame)), Ok(expected));
        for bad in [
            &b"\xc1\x01\x80"[..],
            b"\xc1\x01\x80x 7-1 6-0 0\n",
            b"\xc1\x01\x8000000000000000ff 7-1 6-0\n",
            b"\xc1\x01\x8000000000000000ff 7-1 6-0 9\nm1",
            b"\xc1\x01\x8000000000000000ff 7 - 0\n",
        ] {
            assert!(decode_stored(&Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
    }
}
