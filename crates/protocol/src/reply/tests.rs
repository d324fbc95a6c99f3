use super::*;
use crate::{ClientFrame, Event, Payload, Sender, Timestamp};
use bytes::Bytes;
use serde_json::json;

fn value(reply: &Reply<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    reply.write_json(&mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn replies_are_the_protocols_frames() {
    let channel = Channel::new("a\"b").unwrap();
    let session = SessionId::from_bytes([0; 16]);
    let id = ClientFrame::parse_json(r#"{"type":"ping","id":"q\"1"}"#).unwrap().id;
    let channels = [WelcomeChannel { channel: channel.clone(), cursor: None, recovered: None }];
    let expires = Some(Timestamp::from_millis(0));
    let paced = |user, expires, pace| {
        let channels = &channels;
        Reply::Welcome(Welcomed { session, user, expires, heartbeat: 25, pace, channels })
    };
    let welcomed = |user, expires| paced(user, expires, Pace::default());
    for (frames, bytes, expected) in [
        (100, 0, json!({"frames": 100})),
        (0, 7, json!({"bytes": 7})),
        (1, u32::MAX, json!({"frames": 1, "bytes": u32::MAX})),
    ] {
        assert_eq!(value(&paced(None, None, Pace { frames, bytes }))["pace"], expected);
    }
    assert_eq!(
        value(&welcomed(Some("alice"), expires)),
        json!({"type": "welcome", "session": "AAAAAAAAAAAAAAAAAAAAAA", "heartbeat": 25,
               "user": "alice", "expires": "1970-01-01T00:00:00.000Z",
               "channels": [{"channel": "a\"b"}]})
    );
    assert_eq!(
        value(&Reply::Ack { id: None, acked: Acked { expires, ..Acked::default() } }),
        json!({"type": "ack", "expires": "1970-01-01T00:00:00.000Z"})
    );
    assert_eq!(
        value(&Reply::Expiring { expires: Timestamp::from_millis(0) }),
        json!({"type": "expiring", "expires": "1970-01-01T00:00:00.000Z"})
    );
    let welcome = welcomed(None, None);
    assert_eq!(
        value(&welcome),
        json!({"type": "welcome", "session": "AAAAAAAAAAAAAAAAAAAAAA", "heartbeat": 25,
               "channels": [{"channel": "a\"b"}]})
    );
    let message_id = MessageId::new("m").unwrap();
    assert_eq!(
        value(&Reply::Ack {
            id: id.as_ref(),
            acked: Acked { message_id: Some(&message_id), ..Acked::default() },
        }),
        json!({"type": "ack", "id": "q\"1", "messageId": "m"})
    );
    assert_eq!(value(&Reply::Ack { id: None, acked: Acked::default() }), json!({"type": "ack"}));
    let error = Reply::Error { id: None, code: Code::TooFast, message: "x", retry: Some(5) };
    assert_eq!(
        value(&error),
        json!({"type": "error", "code": "too_fast", "message": "x", "retry": 5})
    );
    assert_eq!(value(&Reply::Pong { id: id.as_ref() }), json!({"type": "pong", "id": "q\"1"}));
    let gap = Reply::Gap { channel: &channel, after: None, cursor: None };
    assert_eq!(value(&gap), json!({"type": "gap", "channel": "a\"b"}));
    let entry = crate::EntryId { ms: 7, seq: 1 };
    let cursor = Cursor::new(&channel, crate::Incarnation::new(1), entry);
    let text = cursor.to_string();
    let gap = Reply::Gap { channel: &channel, after: Some(cursor), cursor: Some(cursor) };
    assert_eq!(
        value(&gap),
        json!({"type": "gap", "channel": "a\"b", "after": text, "cursor": text})
    );
    let acked = Acked { cursor: Some(cursor), recovered: Some(false), ..Acked::default() };
    assert_eq!(
        value(&Reply::Ack { id: None, acked }),
        json!({"type": "ack", "cursor": text, "recovered": false})
    );
    let (result, payload) = (Some(&b"{\"a\": 1}"[..]), Some(&b"null"[..]));
    assert_eq!(
        value(&Reply::Ack { id: None, acked: Acked { result, payload, ..Acked::default() } }),
        json!({"type": "ack", "result": {"a": 1}, "payload": null})
    );
    assert_eq!(
        value(&Reply::Unsubscribed { channel: &channel, code: Code::Unavailable }),
        json!({"type": "unsubscribed", "channel": "a\"b", "code": "unavailable"})
    );
    assert_eq!(
        value(&Reply::Shutdown { reconnect: 1500 }),
        json!({"type": "shutdown", "reconnect": 1500})
    );
}

#[test]
fn a_message_has_all_its_members() {
    let mut message = Message {
        event: Event::new("e").unwrap(),
        payload: Payload::Json(Bytes::from_static(b"[1]")),
        message_id: Some(MessageId::new("m").unwrap()),
        timestamp: Timestamp::from_millis(0),
        from: Some(Sender {
            user: Some("alice".into()),
            session: Some(SessionId::from_bytes([0; 16])),
        }),
        exclude: None,
        stored: None,
    };
    let written = |message: &Message| -> serde_json::Value {
        let mut out = Vec::new();
        message.write_json(&Channel::new("c").unwrap(), &mut out);
        serde_json::from_slice(&out).unwrap()
    };
    assert_eq!(
        written(&message),
        json!({"type": "message", "channel": "c", "event": "e", "payload": [1],
               "timestamp": "1970-01-01T00:00:00.000Z", "messageId": "m",
               "from": {"user": "alice", "session": "AAAAAAAAAAAAAAAAAAAAAA"}})
    );
    for (sender, expected) in [
        (Sender { user: Some("bob".into()), session: None }, json!({"user": "bob"})),
        (
            Sender { user: None, session: Some(SessionId::from_bytes([0; 16])) },
            json!({"session": "AAAAAAAAAAAAAAAAAAAAAA"}),
        ),
    ] {
        message.from = Some(sender);
        assert_eq!(written(&message)["from"], expected);
    }
    message.payload = Payload::Binary(Bytes::from_static(b"\xff\x00"));
    message.message_id = None;
    message.from = None;
    assert_eq!(
        written(&message),
        json!({"type": "message", "channel": "c", "event": "e", "payload": "/wA=",
               "encoding": "base64", "timestamp": "1970-01-01T00:00:00.000Z"})
    );
}
