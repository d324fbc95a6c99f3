//! Any text as a client's JSON frame: never a panic; what is let through is JSON within its bounds,
//! and whatever a frame publishes reaches others as one frame, and as one event of a stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tidewire_protocol::{
    Channel, ClientFrame, FrameId, MAX_FRAME_ID_BYTES, MAX_METHOD_BYTES, MAX_REWIND, Message,
    Payload, Publication, Request, Rewind, Timestamp, sse,
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ClientFrame::parse_json(text) {
        Ok(ClientFrame { id, request }) => {
            check_id(id.as_ref());
            check(request);
        }
        Err(error) => {
            check_id(error.id.as_ref());
            assert!(error.message.len() < 1_024 + text.len());
        }
    }
});

fn check_id(id: Option<&FrameId>) {
    let Some(id) = id else { return };
    // A string may be written with escapes, each of six bytes at most for one of the text.
    assert!(id.as_json().len() <= 6 * MAX_FRAME_ID_BYTES + 2);
    assert!(serde_json::from_str::<&RawValue>(id.as_json()).is_ok());
}

fn check(request: Request) {
    match request {
        Request::Subscribe { rewind: Some(Rewind::Last(count)), .. } => {
            assert!((1..=MAX_REWIND).contains(&count));
        }
        Request::History { page, .. } => assert!((1..=1_000).contains(&page.limit)),
        Request::Rpc { method, payload } => {
            assert!((1..=MAX_METHOD_BYTES).contains(&method.len()));
            assert!(!method.chars().any(char::is_control));
            check_payload(&payload);
        }
        Request::Publish { channel, publication, .. } => published(&channel, publication),
        _ => {}
    }
}

fn check_payload(payload: &Payload) {
    let Payload::Json(json) = payload else { panic!("bytes in a JSON frame") };
    assert!(serde_json::from_slice::<&RawValue>(json).is_ok());
}

fn published(channel: &Channel, publication: Publication) {
    check_payload(&publication.payload);
    let message = Message {
        event: publication.event,
        payload: publication.payload,
        message_id: publication.message_id,
        timestamp: Timestamp::from_millis(0),
        from: None,
        exclude: publication.exclude,
        stored: None,
    };
    let mut frame = Vec::new();
    message.write_json(channel, &mut frame);
    assert!(serde_json::from_slice::<&RawValue>(&frame).is_ok());
    for style in [sse::Style::Payload, sse::Style::Text, sse::Style::Envelope] {
        let mut event = Vec::new();
        sse::write_message(&message, channel, style, &mut event);
        let event = std::str::from_utf8(&event).unwrap();
        // One event, its end at its end alone, of no fields but these.
        assert!(!event.contains('\r'));
        assert_eq!(event.find("\n\n"), Some(event.len() - 2));
        let mut lines = event.trim_end_matches('\n').split('\n');
        assert!(
            lines.next().is_some_and(|it| it.starts_with("event: ") || it.starts_with("data: "))
        );
        assert!(lines.all(|line| line.starts_with("data: ")));
    }
}
