//! Any bytes as the body of a publish: of an HTTP request, of a batch, of a plain Redis `PUBLISH`.
//! Never a panic; what is let through is within its bounds.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tidewire_protocol::{
    BodyError, MARKER, MAX_BATCH, MAX_EVENT_BYTES, MAX_MESSAGE_ID_BYTES, Payload, Publication,
    batch, plain, request,
};

const LIMIT: usize = 1_024;

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let one = request(&body);
    if let Ok(publication) = &one {
        check(publication);
    }
    match plain(&body, LIMIT) {
        Ok(publication) => {
            assert!(body.len() <= LIMIT && body.first() != Some(&MARKER));
            check(&publication);
            // A body that HTTP takes is the same message in Redis.
            if let Ok(one) = one {
                assert_eq!(publication, one);
            }
        }
        Err(BodyError { message, .. }) => assert!(message.len() < 1_024 + body.len()),
    }
    if let Ok(items) = batch(&body) {
        assert!(items.len() <= MAX_BATCH);
        assert!(items.iter().map(|(channels, _)| channels.len()).sum::<usize>() <= 1_000);
        for (channels, publication) in items {
            if let Ok(publication) = publication {
                assert!(!channels.is_empty());
                check(&publication);
            }
        }
    }
});

fn check(publication: &Publication) {
    assert!((1..=MAX_EVENT_BYTES).contains(&publication.event.as_str().len()));
    assert!(!publication.event.as_str().chars().any(char::is_control));
    if let Some(id) = &publication.message_id {
        assert!((1..=MAX_MESSAGE_ID_BYTES).contains(&id.as_str().len()));
    }
    if let Payload::Json(json) = &publication.payload {
        assert!(serde_json::from_slice::<&RawValue>(json).is_ok());
    }
}
