//! The function as a backend sees it, which has a Redis client and nothing else: every sentence of the
//! contract about it.

#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{channel, fcall, node, published, quick, refused};
use tidewire_broker::suite::{Node, Told};
use tidewire_broker::{Origin, Query};
use tidewire_protocol::{Channel, Cursor, EntryId, Message, MessageId, Payload, plain};
use tidewire_testkit::{RedisServer, Reply};

const LIMIT: usize = 64 << 10;

async fn on(redis: &RedisServer) -> Node {
    let node = node(quick(&redis.url()));
    common::ready(&node).await;
    node
}

async fn next(node: &Node, of: &Channel) -> Message {
    match node.told.next().await {
        Told::Message(from, message, Origin::Direct) if from == *of => message,
        other => panic!("{other:?}"),
    }
}

async fn keys(redis: &RedisServer) -> Vec<String> {
    let Reply::Array(keys) = redis.command(&["KEYS", "{*"]).await else { panic!() };
    let mut keys: Vec<_> = keys.into_iter().map(Reply::text).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn a_message_is_kept_told_and_answered_with_its_cursor() {
    let redis = RedisServer::start().await;
    let node = on(&redis).await;
    let to = channel("kept:42");
    node.subscribe(&to).await;
    let body = r#"{"event":"headline","payload":{"title": "hi"},"messageId":"own"}"#;
    let mut before = None;
    for n in 0..3 {
        // What is given besides the body wins.
        let id = format!("m{n}");
        let (cursor, duplicate) = published(&redis, "kept:42", body, Some(&id)).await;
        let message = next(&node, &to).await;
        let stored = message.stored.unwrap();
        assert_eq!(duplicate, 0);
        assert_eq!(cursor, Cursor::new(&to, stored.incarnation, stored.id).to_string());
        assert_eq!(stored.prev, before);
        assert_eq!(message.timestamp.as_millis(), stored.id.ms);
        assert_eq!(message.event.as_str(), "headline");
        assert_eq!(message.payload, Payload::Json(r#"{"title": "hi"}"#.into()));
        assert_eq!(message.message_id.as_ref().unwrap().as_str(), id);
        let reading = node.broker.read(&to, Query::newest(1)).await.unwrap();
        assert_eq!((reading.entries, reading.top), (vec![message], Some(stored.id)));
        assert_eq!(reading.incarnation, stored.incarnation);
        before = Some(stored.id);
    }
    assert_eq!(keys(&redis).await[0], "{tidewire:kept:42}:h");
}

#[tokio::test]
async fn cursors_are_those_of_the_gateways() {
    let redis = RedisServer::start().await;
    let node = on(&redis).await;
    let reading = node.broker.read(&channel("kept:x"), Query::newest(1)).await.unwrap();
    let mut names = vec!["kept:ünï/cödé".to_owned(), format!("kept:{}", "é".repeat(97))];
    names.extend((0..150).map(|n| format!("kept:{}", "x/".repeat(n % 90) + &n.to_string())));
    for name in names {
        let (cursor, _) = published(&redis, &name, "1", None).await;
        let to = channel(&name);
        let read = Cursor::parse(&cursor, &to).unwrap_or_else(|e| panic!("{name} {cursor}: {e}"));
        assert!(read.is_of(reading.incarnation), "{cursor}");
        assert_eq!(read.to_string(), cursor);
    }
}

#[tokio::test]
async fn what_is_sent_again_changes_nothing() {
    let redis = RedisServer::start().await;
    let node = on(&redis).await;
    let to = channel("kept:a");
    node.subscribe(&to).await;
    let first = published(&redis, "kept:a", "one", Some("m1")).await;
    let before = (keys(&redis).await, node.broker.read(&to, Query::newest(9)).await.unwrap());
    for _ in 0..3 {
        assert_eq!(published(&redis, "kept:a", "one", Some("m1")).await, (first.0.clone(), 1));
    }
    refused(&redis, "kept:a", "two", Some("m1"), "CONFLICT").await;
    let mut after = (keys(&redis).await, node.broker.read(&to, Query::newest(9)).await.unwrap());
    after.1.now = before.1.now;
    assert_eq!(after, before);

    // The body's own id counts as much; without any, each is a message of its own.
    let own = r#"{"payload":1,"messageId":"m2"}"#;
    let second = published(&redis, "kept:a", own, None).await;
    assert_eq!(published(&redis, "kept:a", own, None).await, (second.0, 1));
    refused(&redis, "kept:a", r#"{"payload":2,"messageId":"m2"}"#, None, "CONFLICT").await;
    let nested = r#"{"payload":{"messageId":"m2"}}"#;
    for body in ["same", "same", nested, nested] {
        assert_eq!(published(&redis, "kept:a", body, None).await.1, 0);
    }
    // The same id elsewhere is another one.
    assert_eq!(published(&redis, "kept:b", "two", Some("m1")).await.1, 0);
    let payloads = ["\"one\"", "1", "\"same\"", "\"same\""];
    for payload in payloads {
        assert_eq!(next(&node, &to).await.payload, Payload::Json(payload.into()));
    }
}

#[tokio::test]
async fn a_live_channel_keeps_nothing() {
    let redis = RedisServer::start().await;
    let node = on(&redis).await;
    let to = channel("news");
    node.subscribe(&to).await;
    for _ in 0..2 {
        assert_eq!(published(&redis, "news", "hello", Some("m1")).await, (String::new(), 0));
        let message = next(&node, &to).await;
        assert_eq!((message.stored, message.payload), (None, Payload::text("hello")));
    }
    assert!(keys(&redis).await.is_empty());
    // What is given besides the body is its messageId, whatever the body says.
    let own = r#"{"event":"e","payload":[1],"messageId":"own"}"#;
    for (body, given, expected) in [
        ("hello", Some("m1"), Some("m1")),
        (own, Some("m2"), Some("m2")),
        (own, None, Some("own")),
        ("\u{0}", None, None),
    ] {
        published(&redis, "news", body, given).await;
        let message = next(&node, &to).await;
        assert_eq!(message.message_id.as_ref().map(MessageId::as_str), expected);
        assert_eq!(message.event.as_str() == "e", body == own);
        let payload = if body == own { Payload::Json("[1]".into()) } else { Payload::text(body) };
        assert_eq!(message.payload, payload);
    }
    published(&redis, "news", b"\xff\x00", Some(&"x".repeat(128))).await;
    let message = next(&node, &to).await;
    assert_eq!(message.message_id.unwrap().as_str().len(), 128);
    assert_eq!(message.payload, Payload::Binary(Bytes::from_static(b"\xff\x00")));
    // And on a stored one a plain PUBLISH stays live.
    let stored = channel("kept:a");
    node.subscribe(&stored).await;
    redis.publish("tidewire:kept:a", "hello").await;
    assert_eq!(next(&node, &stored).await.stored, None);
    assert!(keys(&redis).await.is_empty());
}

#[tokio::test]
async fn what_could_not_be_delivered_is_refused_before_anything_is_written() {
    let redis = RedisServer::start().await;
    let node = on(&redis).await;
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    let long = "x".repeat(65);
    for to in ["kept:a", "news"] {
        for body in [
            r#"{"payload":1,"event":7}"#.to_owned(),
            r#"{"payload":1,"event":""}"#.to_owned(),
            r#"{"payload":1,"event":"tidewire:gap"}"#.to_owned(),
            r#"{"payload":1,"event":"a\u0085b"}"#.to_owned(),
            format!(r#"{{"payload":1,"event":"{long}"}}"#),
            format!(r#"{{"payload":"{}","event":"{long}"}}"#, "y".repeat(500)),
            r#"{"payload":1,"messageId":""}"#.to_owned(),
            r#"{"payload":1,"messageId":1}"#.to_owned(),
            format!(r#"{{"payload":1,"messageId":"{}"}}"#, "x".repeat(129)),
            r#"{"payload":1,"exclude":"nobody"}"#.to_owned(),
            r#"{"payload":1,"exclude":"AAAAAAAAAAAAAAAAAAAAAB"}"#.to_owned(),
            nested(129),
            format!(r#" {{"payload":{}}}"#, nested(128)),
        ] {
            refused(&redis, to, &body, None, "INVALID").await;
        }
        refused(&redis, to, b"\xc1\x01\x00", None, "INVALID").await;
        refused(&redis, to, "1", Some(&"x".repeat(129)), "INVALID").await;
        refused(&redis, to, vec![b'x'; LIMIT + 1], None, "TOOLARGE").await;
    }
    let arguments: [&[u8]; 3] = [b"tidewire:kept:a", b"1", b"\xff"];
    let broken = fcall(&redis, &arguments).await;
    assert!(matches!(broken, Reply::Error(why) if why.starts_with("INVALID")));
    let foreign = fcall(&redis, &["other:kept:a", "1"]).await;
    assert!(matches!(foreign, Reply::Error(why) if why.starts_with("WRONGPREFIX")));
    for key in ["tidewire:", "tidewire:kept:{node}", "tidewire: ", "tidewire::a"] {
        let answer = fcall(&redis, &[key, "1"]).await;
        assert!(matches!(&answer, Reply::Error(why) if why.starts_with("INVALID")), "{answer:?}");
    }
    assert!(keys(&redis).await.is_empty());

    for body in [nested(128), format!(r#"{{"payload":{}}}"#, nested(127)), "x".repeat(LIMIT)] {
        published(&redis, "kept:a", body, None).await;
    }
    let reading = node.broker.read(&channel("kept:a"), Query::newest(9)).await.unwrap();
    assert_eq!(reading.entries.len(), 3);
}

/// Bodies put together at random from pieces that matter: what the function accepts is what a gateway
/// understands, and nothing else is refused.
#[tokio::test]
async fn what_is_accepted_is_what_gateways_understand() {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"payload\":",
        "\"event\":",
        "\"messageId\":",
        "\"exclude\":",
        "\"other\":",
        "\"x\"",
        "\"\"",
        "\"tidewire:x\"",
        "null",
        "1",
        "\"a\\\"b\"",
        "\"a}b\"",
        " ",
        "\"\\u0001\"",
        "{\"payload\":1,\"event\":\"e\"}",
        "\"é\"",
        "{\"payload\":[1],",
        "\"AAAAAAAAAAAAAAAAAAAAAA\"",
    ];
    let redis = RedisServer::start().await;
    let node = on(&redis).await;
    let to = channel("kept:a");
    let mut accepted = 0;
    let mut bodies: Vec<String> = vec![];
    for _ in 0..400 {
        let count = fastrand::usize(..12);
        let pieces = (0..count).map(|_| PIECES[fastrand::usize(..PIECES.len())]);
        bodies.push(pieces.collect());
        // One that is an object, of members that may be good or bad, small or large.
        let name = || PIECES[fastrand::usize(6..11)];
        let value = || match fastrand::usize(..8) {
            0 => format!("[\"{}\"]", "long ".repeat(90)),
            1 => "{\"event\":\"tidewire:inner\",\"messageId\":\"\"}".to_owned(),
            _ => PIECES[fastrand::usize(11..PIECES.len() - 2)].to_owned(),
        };
        let members: Vec<_> =
            (0..fastrand::usize(..4)).map(|_| format!("{}{}", name(), value())).collect();
        bodies.push(format!("{{\"payload\":1,{}}}", members.join(",")).replace(",}", "}"));
    }
    for body in bodies {
        let bytes = Bytes::from(body.clone());
        let answer = fcall(&redis, &["tidewire:kept:a", &body]).await;
        match (answer, plain(&bytes, LIMIT)) {
            // The same body with the same id came before.
            (Reply::Array(answer), Ok(_)) if answer[1] == Reply::Int(1) => {}
            (Reply::Array(_), Ok(expected)) => {
                accepted += 1;
                let reading = node.broker.read(&to, Query::newest(1)).await.unwrap();
                let got = &reading.entries[0];
                assert_eq!(got.payload, expected.payload, "{body}");
                assert_eq!(got.message_id, expected.message_id, "{body}");
                assert_eq!(got.event, expected.event, "{body}");
            }
            (Reply::Error(why), Err(_)) => assert!(why.starts_with("INVALID"), "{why}"),
            // The same id, with another body.
            (Reply::Error(why), Ok(expected)) if why.starts_with("CONFLICT") => {
                assert!(expected.message_id.is_some(), "{body}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    assert!(accepted > 200, "{accepted}");
}

#[tokio::test]
async fn names_are_those_that_gateways_know() {
    let redis = RedisServer::start().await;
    let _node = on(&redis).await;
    let spaces = ["\u{85}", "\u{a0}", "\u{1680}", "\u{2003}", "\u{2028}", "\u{205f}", "\u{3000}"];
    let others =
        ["a b", "a\tb", "a*", "a?", "a,b", "\u{7f}", "\u{9f}", ".", "..", "a.b", "a:b:c", ""];
    let wide = ["é", "日本", "🦀", "\u{200b}"].map(str::to_owned);
    let long = [100, 200, 201].map(|n| "x".repeat(n));
    let spaced = spaces.iter().map(|space| format!("a{space}b"));
    for name in others.map(str::to_owned).into_iter().chain(spaced).chain(wide).chain(long) {
        let answer = fcall(&redis, &[&format!("tidewire:{name}"), "1"]).await;
        let good = matches!(answer, Reply::Array(_));
        assert_eq!(good, Channel::check(&name).is_ok(), "{name:?} {answer:?}");
    }
}

#[tokio::test]
async fn ids_rise_whatever_the_clock_and_others_do() {
    let redis = RedisServer::start().await;
    let node = on(&redis).await;
    let (to, history, top) = (channel("kept:a"), "{tidewire:kept:a}:h", "{tidewire:kept:a}:top");
    let mut ids: Vec<EntryId> = vec![];
    let mut publish = async || {
        let (cursor, _) = published(&redis, "kept:a", "1", Some(&ids.len().to_string())).await;
        let id = Cursor::parse(&cursor, &to).unwrap().id;
        assert!(ids.last().is_none_or(|last| *last < id), "{id} after {ids:?}");
        let reading = node.broker.read(&to, Query::newest(1)).await.unwrap();
        let stored = reading.entries[0].stored.unwrap();
        assert_eq!((stored.id, reading.top), (id, Some(id)));
        ids.push(id);
        (stored.prev, ids[ids.len().saturating_sub(2)])
    };
    publish().await;
    // As if the clock had been an hour ahead and was set right.
    let ahead = format!("{}-7", publish().await.1.ms + 3_600_000);
    redis.command(&["SET", top, &ahead]).await;
    let (prev, _) = publish().await;
    assert_eq!(prev, EntryId::parse(&ahead));
    for gone in [&[top][..], &[history], &[top, history], &[]] {
        if gone != [top, history] {
            redis.command(&[&["DEL"], gone].concat()).await;
            let (prev, last) = publish().await;
            assert_eq!(prev, Some(last), "without {gone:?}");
        }
        // Nothing is left without an end.
        for key in [top, history] {
            assert!(matches!(redis.command(&["PTTL", key]).await, Reply::Int(1..)), "{key}");
        }
    }
    // The stream knows better than a last id that was set back, or is none.
    for wrong in ["1-1", "nonsense"] {
        redis.command(&["SET", top, wrong]).await;
        let (prev, last) = publish().await;
        assert_eq!(prev, Some(last), "{wrong}");
    }
    // Sequences that are beyond what numbers can say.
    redis.command(&["DEL", history]).await;
    redis.command(&["SET", top, "9999999999999-18446744073709551615"]).await;
    publish().await;
}

#[tokio::test]
async fn an_error_of_redis_leaves_nothing_behind() {
    let redis = RedisServer::start().await;
    let node = on(&redis).await;
    redis.command(&["SET", "{tidewire:kept:a}:h", "no stream"]).await;
    refused(&redis, "kept:a", "1", Some("m1"), "WRONGTYPE").await;
    redis.command(&["SET", "{tidewire:kept:a}:top", "1-1"]).await;
    refused(&redis, "kept:a", "1", Some("m1"), "WRONGTYPE").await;
    redis.command(&["DEL", "{tidewire:kept:a}:h"]).await;
    // Had it remembered the messageId, this would be a false ack.
    assert_eq!(published(&redis, "kept:a", "1", Some("m1")).await.1, 0);
    assert_eq!(published(&redis, "kept:a", "1", Some("m1")).await.1, 1);
    let reading = node.broker.read(&channel("kept:a"), Query::newest(9)).await.unwrap();
    assert_eq!(reading.entries.len(), 1);
}

#[tokio::test]
async fn things_live_as_long_as_the_rules_say() {
    let redis = RedisServer::start().await;
    let _node = on(&redis).await;
    let day = 24 * 3_600_000;
    published(&redis, "kept:a", "1", Some("m1")).await;
    for (what, least, most) in [
        ("h", 300_000, 320_000),
        ("top", 30 * day, 30 * day + 20_000),
        ("id:1:d:m1", 300_000, 300_000),
    ] {
        let key = format!("{{tidewire:kept:a}}:{what}");
        let Reply::Int(left) = redis.command(&["PTTL", &key]).await else { panic!("{what}") };
        assert!((least - 5_000..=most).contains(&left), "{what}: {left}");
    }
}
