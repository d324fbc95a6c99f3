//! Any bytes as a client's MessagePack frame, and any JSON as a message for a MessagePack client:
//! never a panic, never more memory than the limit, and what goes out as MessagePack comes back in
//! as the same JSON.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidewire_protocol::{Channel, ClientFrame, Event, Message, Payload, Request, Timestamp, plain};

/// As JSON, in bytes; small enough for the fuzzer to reach it.
const LIMIT: usize = 1_024;

fuzz_target!(|data: &[u8]| {
    if let Ok(ClientFrame { request: Request::Publish { publication, .. }, .. }) =
        ClientFrame::parse_msgpack(data, LIMIT)
    {
        match &publication.payload {
            Payload::Json(json) => {
                assert!(json.len() <= LIMIT);
                assert!(serde_json::from_slice::<Value>(json).is_ok());
            }
            Payload::Binary(bytes) => assert!(bytes.len() <= data.len()),
        }
    }
    if let Ok(publication) = plain(&Bytes::copy_from_slice(data), 4_096) {
        round_trip(publication.payload);
    }
});

/// Sends a payload out as MessagePack, and publishes what came.
fn round_trip(payload: Payload) {
    let Ok(channel) = Channel::new("a") else { return };
    let message = Message {
        event: Event::default(),
        payload,
        message_id: None,
        timestamp: Timestamp::from_millis(0),
        from: None,
        exclude: None,
        stored: None,
    };
    let mut packed = Vec::new();
    message.write_msgpack(&channel, &mut packed);
    // The frame of a message has a member more and a type of its own; as a publish it is read.
    let stamp = b"\xa9timestamp\xb81970-01-01T00:00:00.000Z";
    let Some(body) = packed.strip_suffix(stamp) else { panic!("no time at the end") };
    let mut publish = body.to_vec();
    publish[0] -= 1;
    let kind = b"\xa4type\xa7message";
    assert_eq!(&publish[1..=kind.len()], kind);
    publish[1 + kind.len() - 7..=kind.len()].copy_from_slice(b"publish");
    let read = ClientFrame::parse_msgpack(&publish, usize::MAX);
    let sent = match &message.payload {
        Payload::Json(json) => serde_json::from_slice::<Value>(json),
        Payload::Binary(bytes) => {
            let Ok(ClientFrame { request: Request::Publish { publication, .. }, .. }) = read else {
                panic!("{read:?}");
            };
            assert_eq!(publication.payload, Payload::Binary(bytes.clone()));
            return;
        }
    };
    // What JSON's parser takes for no value (halves of surrogate pairs, numbers beyond a double),
    // has a meaning here that cannot be compared.
    let Ok(sent) = sent else { return };
    let Ok(ClientFrame { request: Request::Publish { publication, .. }, .. }) = read else {
        panic!("{read:?}");
    };
    let Payload::Json(json) = publication.payload else { panic!("no JSON") };
    let Ok(came) = serde_json::from_slice::<Value>(&json) else { panic!("no JSON") };
    assert_eq!(came, sent);
}
