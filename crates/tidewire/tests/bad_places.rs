//! What strangers ask of stored channels: places that are none, that lead nowhere or are of another
//! time, rewinds, limits and waits out of range. A clear answer each, and nothing else is harmed.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use tidewire_protocol::{Channel, Cursor};
use tidewire_testkit::http::{self, Answer};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, RedisServer, soon};

/// Channels that keep nothing.
const LIVE: &str = "[namespaces.live]\nhistory_size = 0\n";

async fn publish(node: &Gateway, channel: &str, payload: u64) -> String {
    let path = format!("/v1/channels/{channel}/messages");
    let answer = http::post_json(node.addr(), &path, &json!({ "payload": payload })).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["cursor"].as_str().unwrap().to_owned()
}

/// An honest subscriber beside the strangers: still served when all is over.
struct Honest(WebSocket);

impl Honest {
    async fn on(node: &Gateway) -> Self {
        let mut client = WebSocket::connect(node.addr(), "/v1/ws?channel=honest").await;
        client.expect("welcome").await;
        Self(client)
    }

    async fn still_gets_messages(mut self, node: &Gateway) {
        publish(node, "honest", 1).await;
        assert_eq!(self.0.expect("message").await["payload"], 1);
    }
}

/// What a handshake is answered.
async fn handshake(node: &Gateway, query: &str) -> Answer {
    let request = format!(
        "GET /v1/ws?{query} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        node.addr()
    );
    http::raw(node.addr(), request.as_bytes()).await
}

#[track_caller]
fn expect_problem(answer: &Answer, asked: &str, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status(), &body["code"]), (status, &json!(code)), "{asked}: {body}");
    assert!(body["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{asked}: {body}");
}

/// The same query is refused in the same way on the three transports.
async fn refused_everywhere(node: &Gateway, query: &str, status: u16, code: &str) {
    expect_problem(&handshake(node, query).await, query, status, code);
    for route in ["sse", "poll"] {
        let path = format!("/v1/{route}?{query}");
        expect_problem(&http::get(node.addr(), &path).await, &path, status, code);
    }
}

async fn refused(client: &mut WebSocket, frame: Value, code: &str) {
    let answer = client.ask(&frame).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{frame}");
}

#[tokio::test]
async fn cursors_that_are_none() {
    let node = Gateway::start().await;
    let honest = Honest::on(&node).await;
    let foreign = publish(&node, "b", 1).await;
    let own = publish(&node, "a", 1).await;
    let long = format!("{}{own}", "1".repeat(65 - own.len()));
    assert_eq!(long.len(), 65);
    let cursors = ["", "yesterday", "1-0", "1-0.0000000", "-1-0.00000000", &long, &foreign];
    for cursor in cursors {
        refused_everywhere(&node, &format!("channel=a&cursor={cursor}"), 400, "bad_cursor").await;
        let query = format!("channel=b&channel=a&cursor={cursor}");
        refused_everywhere(&node, &query, 400, "bad_cursor").await;
        for end in ["since", "before"] {
            let path = format!("/v1/channels/a/messages?{end}={cursor}");
            expect_problem(&http::get(node.addr(), &path).await, &path, 400, "bad_cursor");
        }
        let mut client = WebSocket::connect(node.addr(), "/v1/ws").await;
        client.expect("welcome").await;
        let frame = json!({"type": "subscribe", "id": 1, "channel": "a", "cursor": cursor});
        refused(&mut client, frame, "bad_cursor").await;
        for end in ["since", "before"] {
            let frame = json!({"type": "history", "id": 1, "channel": "a", end: cursor});
            refused(&mut client, frame, "bad_cursor").await;
        }
        if !cursor.is_empty() {
            let path = format!("/v1/sse?channel=a&lastEventId={cursor}");
            expect_problem(&http::get(node.addr(), &path).await, &path, 400, "bad_cursor");
        }
    }
    honest.still_gets_messages(&node).await;
}

#[tokio::test]
async fn rewinds_limits_and_waits_out_of_range() {
    let node = Gateway::builder().config(LIVE).start().await;
    let honest = Honest::on(&node).await;
    for rewind in ["1000000", "1001", "0", "-1", "-10m", "1.5", "", "soon"] {
        let query = format!("channel=a&rewind={rewind}");
        refused_everywhere(&node, &query, 400, "bad_request").await;
    }
    for limit in ["0", "-1", "1001", "1000000000000000000000", "", "x"] {
        let path = format!("/v1/channels/a/messages?limit={limit}");
        expect_problem(&http::get(node.addr(), &path).await, &path, 400, "bad_request");
    }
    for wait in ["61", "3600", "-1", "", "x", "1000000000000000000000"] {
        let path = format!("/v1/poll?channel=a&wait={wait}");
        expect_problem(&http::get(node.addr(), &path).await, &path, 400, "bad_request");
    }
    for limit in [json!(0), json!(-1), json!(1001), json!(1.5), json!("5")] {
        let mut client = WebSocket::connect(node.addr(), "/v1/ws").await;
        client.expect("welcome").await;
        let frame = json!({"type": "history", "id": 1, "channel": "a", "limit": limit});
        refused(&mut client, frame, "bad_frame").await;
    }
    honest.still_gets_messages(&node).await;
}

#[tokio::test]
async fn a_live_channel_has_no_history() {
    let node = Gateway::builder().config(LIVE).start().await;
    let honest = Honest::on(&node).await;
    for query in ["rewind=1&channel=live:a", "rewind=10m&channel=a&channel=live:a"] {
        refused_everywhere(&node, query, 409, "no_history").await;
    }
    let place = "channel=live:a&cursor=1-0.00000000";
    refused_everywhere(&node, place, 409, "no_history").await;
    for path in [
        "/v1/poll?channel=live:a",
        "/v1/poll?channel=a&channel=live:a",
        "/v1/channels/live:a/messages",
        "/v1/channels/live:a/messages?limit=1",
    ] {
        expect_problem(&http::get(node.addr(), path).await, path, 409, "no_history");
    }
    let mut client = WebSocket::connect(node.addr(), "/v1/ws").await;
    client.expect("welcome").await;
    for frame in [
        json!({"type": "history", "id": 1, "channel": "live:a"}),
        json!({"type": "subscribe", "id": 1, "channel": "live:a", "rewind": 1}),
        json!({"type": "subscribe", "id": 1, "channel": "live:a", "cursor": "1-0.00000000"}),
    ] {
        refused(&mut client, frame, "no_history").await;
    }
    // The session goes on, and may still subscribe without.
    let frame = json!({"type": "subscribe", "id": 2, "channel": "live:a"});
    assert_eq!(client.ask(&frame).await["type"], "ack");
    honest.still_gets_messages(&node).await;
}

#[tokio::test]
async fn message_ids_that_are_too_long() {
    let node = Gateway::start().await;
    let (most, long) = ("x".repeat(128), "x".repeat(129));
    let path = "/v1/channels/a/messages";
    for id in ["", &long] {
        let body = json!({"payload": 1, "messageId": id});
        let answer = http::post_json(node.addr(), path, &body).await;
        expect_problem(&answer, "a body", 400, "bad_request");
        let batch = json!({"messages": [
            {"channel": "a", "payload": 1, "messageId": id},
            {"channel": "b", "payload": 2, "messageId": most},
        ]});
        let results = http::post_json(node.addr(), "/v1/messages", &batch).await.json();
        assert_eq!(results["results"][0]["code"], "bad_request", "{results}");
        assert_eq!(results["results"][1]["messageId"], most, "{results}");
        let mut client = WebSocket::connect(node.addr(), "/v1/ws").await;
        client.expect("welcome").await;
        let frame =
            |id| json!({"type": "publish", "id": 1, "channel": "a", "payload": 1, "messageId": id});
        refused(&mut client, frame(id), "bad_frame").await;
        assert_eq!(client.ask(&frame(&most)).await["messageId"], most);
    }
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nIdempotency-Key: {long}\r\n\
         Content-Length: 1\r\n\r\nx",
        node.addr()
    );
    let answer = http::raw(node.addr(), request.as_bytes()).await;
    expect_problem(&answer, "Idempotency-Key", 400, "bad_request");
}

/// A client that comes with a place on channel `a` is told that it does not go on, over whatever
/// transport, and gets what is published from now on.
async fn is_told(node: &Gateway, place: &str, n: u64) {
    let query = format!("channel=a&cursor={place}");
    let mut socket = WebSocket::connect(node.addr(), &format!("/v1/ws?{query}")).await;
    let welcome = socket.expect("welcome").await["channels"][0].clone();
    assert_eq!(welcome["recovered"], false, "{welcome}");
    let gap = socket.expect("gap").await;
    assert_eq!((&gap["after"], &gap["cursor"]), (&json!(place), &welcome["cursor"]));

    let by_address = EventStream::open(node.addr(), &format!("/v1/sse?{query}"), &[]).await;
    let header = [("Last-Event-ID", place)];
    let by_header = EventStream::open(node.addr(), "/v1/sse?channel=a", &header).await;
    let mut streams = [by_address, by_header];
    for stream in &mut streams {
        let welcome = stream.expect("tidewire:welcome").await.json();
        assert_eq!(welcome["channels"][0]["recovered"], false, "{welcome}");
        assert_eq!(stream.expect("tidewire:gap").await.json()["after"], place);
    }

    // A poll tells it at once, however long it may wait.
    let polled = http::get(node.addr(), &format!("/v1/poll?wait=60&{query}")).await.json();
    assert_eq!((&polled["messages"], &polled["gaps"][0]["after"]), (&json!([]), &json!(place)));

    publish(node, "a", n).await;
    assert_eq!(socket.expect("message").await["payload"], n);
    for stream in &mut streams {
        assert_eq!(stream.expect("message").await.json(), n);
    }
    let cursor = polled["cursor"].as_str().unwrap();
    let again = http::get(node.addr(), &format!("/v1/poll?channel=a&cursor={cursor}")).await.json();
    assert_eq!((&again["messages"][0]["payload"], &again["gaps"]), (&json!(n), &Value::Null));
}

#[tokio::test]
async fn places_from_the_future_and_of_another_life() {
    let node = Gateway::start().await;
    let honest = Honest::on(&node).await;
    let here = publish(&node, "a", 0).await;
    let mut future = Cursor::parse(&here, &Channel::new("a").unwrap()).unwrap();
    future.id.ms += 1_000_000;
    let mut farthest = future;
    (farthest.id.ms, farthest.id.seq) = (u64::MAX, u64::MAX);
    let mut foreign = Cursor::parse(&here, &Channel::new("a").unwrap()).unwrap();
    foreign.life ^= 1;
    for (n, place) in [future, farthest, foreign].into_iter().enumerate() {
        is_told(&node, &place.to_string(), n as u64 + 1).await;
    }
    honest.still_gets_messages(&node).await;
}

#[tokio::test]
async fn places_from_before_a_restart_of_redis() {
    let mut redis = RedisServer::start().await;
    let node = Gateway::builder().redis(redis.url()).start().await;
    let before = publish(&node, "a", 0).await;
    let two = "channel=a&channel=b";
    let mut stream = EventStream::open(node.addr(), &format!("/v1/sse?{two}"), &[]).await;
    stream.expect("tidewire:welcome").await;
    let other = publish(&node, "b", 0).await;
    let token = stream.expect("message").await.id.unwrap();
    drop(stream);
    redis.restart_empty().await;
    // Its publishing connections are new, too, once this is through.
    let ping = json!({"payload": 0, "messageId": "m"});
    soon("a publish", async {
        let path = "/v1/channels/c/messages";
        while http::post_json(node.addr(), path, &ping).await.status() != 200 {}
    })
    .await;
    node.wait_ready(200).await;

    is_told(&node, &before, 1).await;
    let mut places = [json!(before), json!(other)];
    places.sort_by_key(Value::to_string);
    let afters = |gaps: &[Value]| {
        let mut afters: Vec<_> = gaps.iter().map(|gap| gap["after"].clone()).collect();
        afters.sort_by_key(Value::to_string);
        afters
    };
    let polled = http::get(node.addr(), &format!("/v1/poll?{two}&cursor={token}")).await.json();
    assert_eq!(afters(polled["gaps"].as_array().unwrap()), places);
    let header = [("Last-Event-ID", token.as_str())];
    let mut stream = EventStream::open(node.addr(), &format!("/v1/sse?{two}"), &header).await;
    stream.expect("tidewire:welcome").await;
    let mut gaps = vec![];
    for _ in 0..2 {
        gaps.push(stream.expect("tidewire:gap").await.json());
    }
    assert_eq!(afters(&gaps), places);
    publish(&node, "b", 5).await;
    assert_eq!(stream.expect("message").await.json(), 5);
}

#[tokio::test]
async fn last_event_ids_that_cannot_be_read() {
    let node = Gateway::builder().config(LIVE).start().await;
    let honest = Honest::on(&node).await;
    publish(&node, "a", 0).await;
    let foreign = publish(&node, "c", 0).await;
    let long = "x".repeat(4_000);
    let path = "/v1/sse?channel=a&channel=live:a&channel=b";
    for id in ["garbage!", "0", "AAAA", "na\u{ef}ve", "1-0.00000000", &long, &foreign] {
        let header = [("Last-Event-ID", id)];
        let mut stream = EventStream::open(node.addr(), path, &header).await;
        let welcome = stream.expect("tidewire:welcome").await.json();
        let mut gaps = vec![];
        for _ in 0..2 {
            let gap = stream.expect("tidewire:gap").await.json();
            assert_eq!(gap["after"], Value::Null, "{id}: {gap}");
            gaps.push((gap["channel"].clone(), gap["cursor"].clone()));
        }
        gaps.sort_by_key(|(channel, _)| channel.to_string());
        let told = welcome["channels"].as_array().unwrap().iter();
        let told = told.filter(|told| told["channel"] != "live:a");
        let mut told: Vec<_> = told
            .map(|told| {
                assert_eq!(told["recovered"], false, "{id}: {told}");
                (told["channel"].clone(), told["cursor"].clone())
            })
            .collect();
        told.sort_by_key(|(channel, _)| channel.to_string());
        assert_eq!(gaps, told, "{id}");
        // The stream goes on, and its ids are good again.
        publish(&node, "b", 1).await;
        let last = stream.expect("message").await.id.unwrap();
        drop(stream);
        publish(&node, "a", 2).await;
        let header = [("Last-Event-ID", last.as_str())];
        let mut stream = EventStream::open(node.addr(), path, &header).await;
        stream.expect("tidewire:welcome").await;
        assert_eq!(stream.expect("message").await.json(), 2);
    }
    honest.still_gets_messages(&node).await;
}
