//! What backends put on Pub/Sub with a plain `PUBLISH`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{channel, node, quick};
use tidewire_broker::Origin;
use tidewire_broker::suite::Told;
use tidewire_protocol::{Message, Payload, Timestamp};
use tidewire_testkit::RedisServer;

const TO: &str = "tidewire:news";

#[tokio::test]
async fn every_kind_of_body_is_understood_and_nothing_half() {
    let redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    node.subscribe(&channel("news")).await;
    let next = async || match node.told.next().await {
        Told::Message(from, message, Origin::Direct) if from == channel("news") => message,
        other => panic!("{other:?}"),
    };
    let json = |text: &str| Payload::Json(text.to_owned().into());

    let before = Timestamp::now();
    let object = r#"{"event":"headline","payload":{"title": "hi"},"messageId":"m1"}"#;
    assert_eq!(redis.publish(TO, object).await, 1);
    let message: Message = next().await;
    assert_eq!(message.event.as_str(), "headline");
    assert_eq!(message.payload, json(r#"{"title": "hi"}"#));
    assert_eq!(message.message_id.unwrap().as_str(), "m1");
    assert_eq!((message.from, message.exclude), (None, None));
    assert!((before..=Timestamp::now()).contains(&message.timestamp));

    for (body, payload) in [
        (&br#"{"title":"hi"}"#[..], json(r#"{"title":"hi"}"#)),
        (br#"{"payload":1,"more":2}"#, json(r#"{"payload":1,"more":2}"#)),
        (b" [1,2]\n", json("[1,2]")),
        (b"42", json("42")),
        (b"hello", json("\"hello\"")),
        (b"", json("\"\"")),
        (b"\xff\x00", Payload::Binary(b"\xff\x00".to_vec().into())),
    ] {
        redis.publish(TO, body).await;
        let message = next().await;
        assert!(message.event.is_default() && message.message_id.is_none());
        assert_eq!(message.payload, payload, "{}", body.escape_ascii());
    }

    let limit = 64 << 10;
    for body in [
        b"\xc1\x01nonsense".to_vec(),
        b"\xc1".to_vec(),
        br#"{"payload":1,"event":7}"#.to_vec(),
        br#"{"payload":1,"event":"tidewire:gap"}"#.to_vec(),
        format!(r#"{{"payload":1,"event":"{}"}}"#, "x".repeat(65)).into_bytes(),
        br#"{"payload":1,"exclude":"nobody"}"#.to_vec(),
        vec![b'x'; limit + 1],
        // More than is read into memory at all.
        vec![b'x'; 40 * limit],
    ] {
        assert_eq!(redis.publish(TO, &body).await, 1);
    }
    // Text that grows by its escapes is within the limit as it was sent.
    redis.publish(TO, vec![b'"'; limit]).await;
    assert_eq!(next().await.payload.len(), 2 * limit + 2);
    assert_eq!(node.broker.ready(), Ok(()));
    node.broker.close().await;
}

#[tokio::test]
async fn other_prefixes_are_other_worlds() {
    let redis = RedisServer::start().await;
    let (one, other) = (node(quick(&redis.url())), {
        let mut settings = quick(&redis.url());
        settings.prefix = "staging".into();
        node(settings)
    });
    let to = channel("news");
    one.subscribe(&to).await;
    other.subscribe(&to).await;
    redis.publish("staging:news", "1").await;
    redis.publish(TO, "2").await;
    for (node, body) in [(&one, "2"), (&other, "1")] {
        let Told::Message(_, message, _) = node.told.next().await else { panic!() };
        assert_eq!(message.payload, Payload::Json(body.into()));
    }
}
