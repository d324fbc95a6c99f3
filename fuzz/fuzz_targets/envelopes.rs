//! Any bytes as what stands on Redis Pub/Sub: gateways' frames, the function's frames of stored and
//! of named messages, and the plain bodies in them. Never a panic; what is read is JSON where it
//! says so, and a frame that is written again is read as the same message.

#![no_main]

// The reader of stored messages is the crate's own, and stays private to it.
#[allow(dead_code)]
#[path = "../../crates/broker-redis/src/stored.rs"]
mod stored;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tidewire_protocol::{
    Message, Payload, Timestamp, decode_envelope, decode_named, decode_stored, encode_envelope,
    is_named, is_stored, plain,
};

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    if let Ok(message) = decode_envelope(&frame) {
        check(&message);
        let again = Bytes::from(encode_envelope(&message));
        assert_eq!(decode_envelope(&again), Ok(message));
    }
    if let Ok((_, body)) = decode_named(&frame) {
        assert!(is_named(&frame));
        let _ = plain(&body, 1_024);
    }
    if let Ok(read) = decode_stored(&frame) {
        assert!(is_stored(&frame));
        // A stored message is delivered whatever its body is: leaving it out would be a hole.
        let message = stored::read(&frame).map(|read| read.message).unwrap();
        assert_eq!(message.stored, Some(read.stored));
        assert_eq!(message.timestamp, Timestamp::from_millis(read.stored.id.ms));
        check(&message);
    }
});

fn check(message: &Message) {
    if let Payload::Json(json) = &message.payload {
        assert!(serde_json::from_slice::<&RawValue>(json).is_ok());
    }
}
