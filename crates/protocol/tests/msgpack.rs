//! The subprotocol `tidewire.msgpack` says and hears what `tidewire.json` does. An independent
//! implementation of MessagePack plays the client.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidewire_protocol::{
    Acked, Channel, ClientFrame, Code, Cursor, EntryId, Event, Incarnation, Message, MessageId,
    Pace, Payload, Reply, Request, Sender, SessionId, Stored, Subprotocol, Timestamp,
    WelcomeChannel, Welcomed,
};

const LIMIT: usize = 64 << 10;

fn pack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

fn unpack(bytes: &[u8]) -> Value {
    rmp_serde::from_slice(bytes).unwrap()
}

/// Any JSON, with the numbers that both formats have.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-200..70_000_i64).prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 60, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::from),
            vec((".{0,8}", inner), 0..20).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

/// A client's frame, mostly as it must be: members by name, each with what may stand there or not.
fn client_frame() -> impl Strategy<Value = Value> {
    let kind = proptest::sample::select(vec![
        "subscribe",
        "unsubscribe",
        "publish",
        "history",
        "auth",
        "ping",
        "dance",
    ]);
    let member = (
        proptest::sample::select(vec![
            "id",
            "channel",
            "cursor",
            "rewind",
            "event",
            "payload",
            "messageId",
            "echo",
            "since",
            "before",
            "limit",
            "token",
            "exclude",
            "other",
        ]),
        prop_oneof![
            4 => Just(Value::from("news")),
            1 => Just(json!(7)),
            1 => Just(json!("10m")),
            1 => Just(json!(false)),
            2 => value(),
        ],
    );
    (kind, vec(member, 0..6)).prop_map(|(kind, members)| {
        let mut frame = Map::new();
        frame.insert("type".to_owned(), kind.into());
        frame.insert("channel".to_owned(), "news".into());
        frame.insert("payload".to_owned(), json!({"a": 1}));
        if kind != "publish" {
            frame.remove("payload");
        }
        frame.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Value::Object(frame)
    })
}

fn channel() -> Channel {
    Channel::new("room:ä").unwrap()
}

fn place() -> Stored {
    Stored {
        incarnation: Incarnation::new(0x1234),
        id: EntryId::parse("1700000000000-7").unwrap(),
        prev: None,
    }
}

/// A message with or without each of its parts.
fn message(payload: Payload, parts: u8) -> Message {
    let has = |bit: u8| parts & (1 << bit) != 0;
    let user = has(3).then(|| "ann".into());
    Message {
        event: Event::new(if has(0) { "said" } else { "message" }).unwrap(),
        payload,
        message_id: has(1).then(|| MessageId::new("m-1").unwrap()),
        timestamp: Timestamp::from_millis(1_700_000_000_123),
        from: (has(2) || has(3)).then(|| Sender { user, session: has(2).then(SessionId::random) }),
        exclude: None,
        stored: has(4).then(place),
    }
}

/// The same from both subprotocols.
fn both(write: impl Fn(Subprotocol, &mut Vec<u8>)) -> (Value, Value) {
    let [json, packed] = Subprotocol::ALL.map(|subprotocol| {
        let mut out = Vec::new();
        write(subprotocol, &mut out);
        out
    });
    (serde_json::from_slice(&json).unwrap(), unpack(&packed))
}

proptest! {
    /// A client's frame means the same, or is refused with the same words and the same id.
    #[test]
    fn frames_of_clients(frame in client_frame()) {
        let json = ClientFrame::parse_json(&frame.to_string());
        let packed = ClientFrame::parse_msgpack(&pack(&frame), LIMIT);
        match (&json, &packed) {
            // A duration counts back from now: the two were read one after the other.
            (
                Ok(ClientFrame { request: Request::Subscribe { rewind: Some(_), channel, .. }, id }),
                Ok(ClientFrame { request: Request::Subscribe { rewind: Some(_), channel: other, .. }, id: also }),
            ) => prop_assert_eq!((channel, id), (other, also)),
            _ => prop_assert_eq!(&json, &packed),
        }
    }

    /// Any bytes are survived, and so is every frame that was cut or damaged.
    #[test]
    fn noise(frame in client_frame(), at in any::<usize>(), byte in any::<u8>(), noise in vec(any::<u8>(), 0..300)) {
        let _ = ClientFrame::parse_msgpack(&noise, LIMIT);
        let mut packed = pack(&frame);
        let at = at % packed.len();
        prop_assert!(ClientFrame::parse_msgpack(&packed[..at], LIMIT).is_err());
        packed[at] = byte;
        let _ = ClientFrame::parse_msgpack(&packed, LIMIT);
    }

    /// A message is the same map, whatever its payload.
    #[test]
    fn messages(payload in value(), parts in any::<u8>()) {
        let message = message(Payload::Json(payload.to_string().into()), parts);
        let (mut json, packed) = both(|sub, out| sub.write_message(&message, &channel(), out));
        // This parser of JSON reads some numbers one bit off; the MessagePack must be exact.
        json["payload"] = payload;
        prop_assert_eq!(json, packed);
    }

    /// Bytes are `bin`, and come back as they were.
    #[test]
    fn bytes_stay_bytes(bytes in vec(any::<u8>(), 0..300), parts in any::<u8>()) {
        let message = message(Payload::Binary(Bytes::from(bytes.clone())), parts);
        let mut out = Vec::new();
        message.write_msgpack(&channel(), &mut out);
        #[derive(serde::Deserialize)]
        struct Shown<'m> {
            #[serde(borrow)]
            payload: &'m serde_bytes::Bytes,
            encoding: Option<String>,
        }
        let shown: Shown<'_> = rmp_serde::from_slice(&out).unwrap();
        prop_assert_eq!(shown.payload.as_ref(), &bytes[..]);
        prop_assert_eq!(shown.encoding, None);
    }
}

#[test]
fn every_reply() {
    let (channel, session) = (channel(), SessionId::random());
    let cursor = Cursor::new(&channel, place().incarnation, place().id);
    let frame = json!({"type": "ping", "id": "a\"ä"});
    let named = ClientFrame::parse_json(&frame.to_string()).unwrap().id.unwrap();
    let id = Some(&named);
    let channels = [
        WelcomeChannel { channel: channel.clone(), cursor: Some(cursor), recovered: Some(false) },
        WelcomeChannel { channel: channel.clone(), cursor: None, recovered: None },
    ];
    let messages = [message(Payload::text("x"), 0xff), message(Payload::text("y"), 0)];
    let message_id = MessageId::new("m").unwrap();
    let page = |next| Acked { page: Some((&channel, &messages[..], next)), ..Acked::default() };
    let expires = Some(Timestamp::from_millis(1_700_000_000_123));
    let welcome = |user, expires| {
        let channels = &channels;
        let pace = Pace { frames: 100, bytes: 1 << 20 };
        Reply::Welcome(Welcomed { session, user, expires, heartbeat: 25, pace, channels })
    };
    let replies = [
        welcome(None, None),
        welcome(Some("ann \"ä\""), expires),
        Reply::Ack { id: None, acked: Acked::default() },
        Reply::Ack {
            id,
            acked: Acked {
                message_id: Some(&message_id),
                cursor: Some(cursor),
                duplicate: true,
                recovered: Some(true),
                expires,
                page: None,
                result: Some(br#"{"a":[1,"b"]}"#),
                payload: Some(b"2.5"),
            },
        },
        Reply::Ack { id, acked: Acked { expires, ..Acked::default() } },
        Reply::Ack { id, acked: page(None) },
        Reply::Ack { id, acked: page(Some(cursor)) },
        Reply::Error { id, code: Code::BadChannel, message: "no \"x\"", retry: Some(1_000) },
        Reply::Pong { id },
        Reply::Gap { channel: &channel, after: Some(cursor), cursor: None },
        Reply::Position { channel: &channel, cursor },
        Reply::Unsubscribed { channel: &channel, code: Code::Unavailable },
        Reply::Expiring { expires: Timestamp::from_millis(0) },
        Reply::Shutdown { reconnect: 70_000 },
    ];
    for reply in &replies {
        let (json, packed) = both(|subprotocol, out| subprotocol.write_reply(reply, out));
        assert_eq!(json, packed);
    }
}

#[test]
fn a_publish_of_bytes() {
    let mut frame = vec![0x83];
    for text in ["type", "publish", "channel", "news", "payload"] {
        frame.push(0xa0 | text.len() as u8);
        frame.extend_from_slice(text.as_bytes());
    }
    frame.extend_from_slice(&[0xc4, 3, 0, 0xff, 7]);
    let parsed = ClientFrame::parse_msgpack(&frame, LIMIT).unwrap();
    let Request::Publish { publication, .. } = parsed.request else { panic!("no publish") };
    assert_eq!(publication.payload, Payload::Binary(Bytes::from_static(&[0, 0xff, 7])));

    // Nothing else takes a payload, of whatever kind.
    let mut frame = vec![0x82];
    for text in ["type", "ping", "payload"] {
        frame.push(0xa0 | text.len() as u8);
        frame.extend_from_slice(text.as_bytes());
    }
    frame.extend_from_slice(&[0xc4, 0]);
    let error = ClientFrame::parse_msgpack(&frame, LIMIT).unwrap_err();
    assert!(error.message.contains("unknown member 'payload'"), "{}", error.message);
}

#[test]
fn what_is_wrong_is_told() {
    let twice = [&[0x82][..], b"\xa4type\xa4ping\xa4type\xa4ping"].concat();
    let many: Value = (0..20).map(|n| (format!("m{n}"), n.into())).collect::<Map<_, _>>().into();
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let deep = json!({"type": "publish", "channel": "a", "payload": deep});
    // Six bytes each in JSON, one here.
    let long = json!({"type": "publish", "channel": "a", "payload": "\u{1}".repeat(20_000)});
    for (frame, code, part) in [
        (vec![], Code::BadFrame, "not MessagePack"),
        (vec![0xc1], Code::BadFrame, "not MessagePack"),
        (pack(&json!([1])), Code::BadFrame, "no map"),
        (pack(&json!({})), Code::BadFrame, "'type' is missing"),
        (twice, Code::BadFrame, "twice"),
        (pack(&many), Code::BadFrame, "too many members"),
        (pack(&deep), Code::BadFrame, "nested deeper than 128"),
        (pack(&long), Code::TooLarge, "65536"),
    ] {
        let error = ClientFrame::parse_msgpack(&frame, LIMIT).unwrap_err();
        assert_eq!(error.code, code, "{}", error.message);
        assert!(error.message.contains(part), "{} has no {part}", error.message);
        assert!(!error.message.contains("JSON:") && !error.message.contains("line"));
    }
}
