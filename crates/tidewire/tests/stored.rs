//! Stored channels: whoever was away gets exactly what it missed, on any node and over any
//! transport, or is told that it cannot.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, RedisServer, http, soon};

/// Nodes of one cluster, or one node alone.
struct Nodes {
    all: Vec<Gateway>,
    redis: Option<RedisServer>,
}

const CONFIG: &str = "[namespaces.short]\nhistory_size = 3\n[namespaces.live]\nhistory_size = 0\n";

impl Nodes {
    async fn alone() -> Self {
        Self { all: vec![Gateway::builder().config(CONFIG).start().await], redis: None }
    }

    async fn two() -> Self {
        let redis = RedisServer::start().await;
        let mut all = Vec::new();
        for _ in 0..2 {
            all.push(Gateway::builder().config(CONFIG).redis(redis.url()).start().await);
        }
        Self { all, redis: Some(redis) }
    }

    fn one(&self) -> &Gateway {
        &self.all[0]
    }

    fn other(&self) -> &Gateway {
        &self.all[self.all.len() - 1]
    }
}

async fn publish(node: &Gateway, channel: &str, payload: impl Into<Value>) -> String {
    let body = json!({ "payload": payload.into() });
    let path = format!("/v1/channels/{channel}/messages");
    let answer = http::post_json(node.addr(), &path, &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["cursor"].as_str().unwrap().to_owned()
}

async fn get(node: &Gateway, path: &str) -> Value {
    let answer = http::get(node.addr(), path).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

fn payloads(body: &Value) -> Vec<i64> {
    let messages = body["messages"].as_array().unwrap();
    messages.iter().map(|message| message["payload"].as_i64().unwrap()).collect()
}

/// Runs a test on one node with the embedded broker and on two with Redis.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $name() { super::$name(super::Nodes::alone().await).await; })*
        }
        mod redis {
            $(#[tokio::test] async fn $name() { super::$name(super::Nodes::two().await).await; })*
        }
    };
}

on_both! {
    a_websocket_resumes_where_it_was
    an_event_stream_resumes_by_its_last_id
    one_id_holds_the_places_of_many_channels
    every_id_of_a_stream_holds_all_its_places
    a_place_goes_from_transport_to_transport
    a_new_subscriber_rewinds
    history_is_paged_both_ways
    a_page_of_large_messages_has_fewer
    polls_wait_and_go_on
    what_is_sent_again_changes_nothing
    what_is_no_longer_kept_is_told
    a_long_backlog_fits_through_a_small_outbox
    places_that_do_not_go_on
}

async fn a_websocket_resumes_where_it_was(nodes: Nodes) {
    let mut client = WebSocket::connect(nodes.one().addr(), "/v1/ws?channel=room:1").await;
    let welcome = client.expect("welcome").await;
    let empty = welcome["channels"][0]["cursor"].as_str().unwrap().to_owned();
    let first = publish(nodes.one(), "room:1", 1).await;
    assert_eq!(client.expect("message").await["cursor"], first.as_str());
    drop(client);
    for n in 2..=5 {
        publish(nodes.other(), "room:1", n).await;
    }
    // From the place before the first message, and from the first one.
    for (cursor, missed) in [(empty, 1..=5), (first, 2..=5)] {
        let mut client = WebSocket::connect(nodes.other().addr(), "/v1/ws").await;
        client.expect("welcome").await;
        let frame = json!({"type": "subscribe", "id": 1, "channel": "room:1", "cursor": cursor});
        client.send(&frame).await;
        let ack = client.expect("ack").await;
        assert_eq!((&ack["recovered"], &ack["cursor"]), (&json!(true), &json!(cursor)));
        for n in missed {
            assert_eq!(client.expect("message").await["payload"], n);
        }
        let path = format!("/v1/ws?channel=room:1&cursor={cursor}");
        let mut client = WebSocket::connect(nodes.one().addr(), &path).await;
        assert_eq!(client.expect("welcome").await["channels"][0]["recovered"], true);
    }
}

async fn an_event_stream_resumes_by_its_last_id(nodes: Nodes) {
    let mut stream = EventStream::open(nodes.one().addr(), "/v1/sse?channel=room:1", &[]).await;
    let mut last = stream.expect("tidewire:welcome").await.id.unwrap();
    for n in 1..=3 {
        // At each point it goes away, misses one, and comes back on the other node.
        drop(stream);
        publish(nodes.one(), "room:1", n).await;
        let header = [("Last-Event-ID", last.as_str())];
        stream = EventStream::open(nodes.other().addr(), "/v1/sse?channel=room:1", &header).await;
        stream.expect("tidewire:welcome").await;
        let event = stream.expect("message").await;
        assert_eq!(event.json(), n);
        last = event.id.unwrap();
    }
    assert!(last.len() <= 32, "{last}");
}

async fn one_id_holds_the_places_of_many_channels(nodes: Nodes) {
    let both = "/v1/sse?channel=room:1&channel=live:x&channel=room:2";
    let mut stream = EventStream::open(nodes.one().addr(), both, &[]).await;
    stream.expect("tidewire:welcome").await;
    publish(nodes.one(), "room:1", 1).await;
    let last = stream.expect("message").await.id.unwrap();
    drop(stream);
    for n in 2..=3 {
        publish(nodes.other(), "room:1", n).await;
    }
    publish(nodes.other(), "room:2", 10).await;
    publish(nodes.other(), "room:3", 20).await;
    // The order in the address does not matter, nor what was added.
    let again = "/v1/sse?channel=room:3&channel=room:2&channel=room:1";
    let header = [("Last-Event-ID", last.as_str())];
    let mut stream = EventStream::open(nodes.other().addr(), again, &header).await;
    stream.expect("tidewire:welcome").await;
    let mut got = Vec::new();
    let mut last = None;
    for _ in 0..3 {
        let event = stream.expect("message").await;
        got.push(event.json().as_i64().unwrap());
        last = event.id;
    }
    got.sort_unstable();
    assert_eq!(got, [2, 3, 10]);
    // And nothing is left.
    let header = [("Last-Event-ID", last.as_deref().unwrap())];
    let mut stream = EventStream::open(nodes.one().addr(), again, &header).await;
    stream.expect("tidewire:welcome").await;
    publish(nodes.one(), "room:2", 11).await;
    assert_eq!(stream.expect("message").await.json(), 11);
}

async fn every_id_of_a_stream_holds_all_its_places(nodes: Nodes) {
    let mut places = Vec::new();
    for channel in ["room:1", "room:2", "room:3"] {
        places.push(publish(nodes.one(), channel, 0).await);
        publish(nodes.one(), channel, 1).await;
    }
    let path = format!(
        "/v1/sse?channel=room:1&cursor={}&channel=room:2&cursor={}&channel=room:3&cursor={}",
        places[0], places[1], places[2]
    );
    // Wherever the connection breaks, from the welcome on: the last id yields all that is left.
    for read in 0..=3 {
        let mut stream = EventStream::open(nodes.other().addr(), &path, &[]).await;
        let mut last = stream.expect("tidewire:welcome").await.id.unwrap();
        for _ in 0..read {
            last = stream.expect("message").await.id.unwrap();
        }
        let again = "/v1/sse?channel=room:3&channel=room:2&channel=room:1";
        let header = [("Last-Event-ID", last.as_str())];
        let mut stream = EventStream::open(nodes.one().addr(), again, &header).await;
        stream.expect("tidewire:welcome").await;
        for _ in read..3 {
            assert_eq!(stream.expect("message").await.json(), 1);
        }
    }
}

async fn a_place_goes_from_transport_to_transport(nodes: Nodes) {
    let at = publish(nodes.one(), "room:1", 0).await;
    for n in 1..=2 {
        publish(nodes.one(), "room:1", n).await;
    }
    let polled = get(nodes.other(), &format!("/v1/poll?channel=room:1&cursor={at}")).await;
    assert_eq!(payloads(&polled), [1, 2]);
    let cursor = polled["cursor"].as_str().unwrap();
    publish(nodes.one(), "room:1", 3).await;
    let header = [("Last-Event-ID", cursor)];
    let mut stream =
        EventStream::open(nodes.other().addr(), "/v1/sse?channel=room:1&envelope=1", &header).await;
    stream.expect("tidewire:welcome").await;
    let message = stream.expect("message").await.json();
    assert_eq!(message["payload"], 3);
    publish(nodes.one(), "room:1", 4).await;
    let path = format!("/v1/ws?channel=room:1&cursor={}", message["cursor"].as_str().unwrap());
    let mut client = WebSocket::connect(nodes.one().addr(), &path).await;
    client.expect("welcome").await;
    assert_eq!(client.expect("message").await["payload"], 4);
}

async fn a_new_subscriber_rewinds(nodes: Nodes) {
    for n in 1..=5 {
        publish(nodes.one(), "room:1", n).await;
    }
    for path in ["/v1/ws?channel=room:1&rewind=2", "/v1/ws?channel=room:1&rewind=10m"] {
        let mut client = WebSocket::connect(nodes.other().addr(), path).await;
        client.expect("welcome").await;
        let first = if path.ends_with("=2") { 4 } else { 1 };
        for n in first..=5 {
            assert_eq!(client.expect("message").await["payload"], n);
        }
    }
    let path = "/v1/sse?channel=room:1&channel=room:none&rewind=1";
    let mut stream = EventStream::open(nodes.other().addr(), path, &[]).await;
    stream.expect("tidewire:welcome").await;
    assert_eq!(stream.expect("message").await.json(), 5);
    let polled = get(nodes.other(), "/v1/poll?channel=room:1&rewind=3").await;
    assert_eq!(payloads(&polled), [3, 4, 5]);
}

async fn history_is_paged_both_ways(nodes: Nodes) {
    let mut places = Vec::new();
    for n in 0..10 {
        places.push(publish(nodes.one(), "room:1", n).await);
    }
    let base = "/v1/channels/room:1/messages";
    let page = get(nodes.other(), &format!("{base}?limit=4")).await;
    assert_eq!(payloads(&page), [6, 7, 8, 9]);
    let before = page["next"].as_str().unwrap();
    let page = get(nodes.other(), &format!("{base}?limit=4&before={before}")).await;
    assert_eq!(payloads(&page), [2, 3, 4, 5]);
    let page = get(nodes.other(), &format!("{base}?limit=6&since={}", places[3])).await;
    assert_eq!(payloads(&page), [4, 5, 6, 7, 8, 9]);
    assert!(page.get("next").is_none());
    let page = get(nodes.one(), &format!("{base}?limit=2&since={}", places[3])).await;
    assert_eq!(payloads(&page), [4, 5]);
    assert_eq!(page["next"], places[5].as_str());
    let mut client = WebSocket::connect(nodes.one().addr(), "/v1/ws").await;
    client.expect("welcome").await;
    let frame = json!({"type": "history", "id": 1, "channel": "room:1", "since": places[7]});
    assert_eq!(payloads(&client.ask(&frame).await), [8, 9]);
}

/// A page of history was as large as what it was asked for, 6 MB by default and 64 MB at most, and
/// written whole before its client read anything; over a WebSocket it ended the session as slow.
async fn a_page_of_large_messages_has_fewer(nodes: Nodes) {
    let text = "x".repeat(60_000);
    for n in 0..20 {
        publish(nodes.one(), "room:1", format!("{n} {text}")).await;
    }
    let numbers = |page: &Value| -> Vec<usize> {
        let messages = page["messages"].as_array().unwrap().iter();
        messages
            .map(|it| it["payload"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap())
            .collect()
    };
    // Backwards from the end over HTTP, forwards over a WebSocket.
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/channels/room:1/messages?limit=100{before}");
        let page = get(nodes.other(), &path).await;
        assert!(page.to_string().len() <= 512 << 10);
        seen.splice(..0, numbers(&page));
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    let mut client = WebSocket::connect(nodes.one().addr(), "/v1/ws").await;
    client.expect("welcome").await;
    let frame = json!({"type": "subscribe", "id": 1, "channel": "room:1", "rewind": 20});
    let mut since = client.ask(&frame).await["cursor"].clone();
    for n in 0..20 {
        let message = client.expect("message").await;
        assert!(message["payload"].as_str().unwrap().starts_with(&format!("{n} ")));
    }
    let mut seen = Vec::new();
    loop {
        let frame = json!({"type": "history", "id": 2, "channel": "room:1", "since": since});
        let page = client.ask(&frame).await;
        seen.extend(numbers(&page));
        if page["next"].is_null() {
            break;
        }
        since = page["next"].clone();
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

async fn polls_wait_and_go_on(nodes: Nodes) {
    let place = get(nodes.one(), "/v1/poll?channel=room:1").await;
    assert_eq!(payloads(&place), [] as [i64; 0]);
    let cursor = place["cursor"].as_str().unwrap().to_owned();
    let path = format!("/v1/poll?channel=room:1&cursor={cursor}&wait=20");
    let waiting = get(nodes.other(), &path);
    let publish = async {
        let subscribed =
            async { while get(nodes.other(), "/v1/channels").await["channels"] == json!([]) {} };
        soon("the poll", subscribed).await;
        publish(nodes.one(), "room:1", 1).await
    };
    let (polled, _) = tokio::join!(waiting, publish);
    assert_eq!(payloads(&polled), [1]);
    let cursor = polled["cursor"].as_str().unwrap();
    let empty = get(nodes.one(), &format!("/v1/poll?channel=room:1&cursor={cursor}&wait=0")).await;
    assert_eq!((payloads(&empty), &empty["cursor"]), (vec![], &json!(cursor)));
    // Several channels share one token.
    let token = get(nodes.one(), "/v1/poll?channel=room:1&channel=room:2").await["cursor"].clone();
    self::publish(nodes.other(), "room:2", 2).await;
    let path = format!("/v1/poll?channel=room:2&channel=room:1&cursor={}", token.as_str().unwrap());
    assert_eq!(payloads(&get(nodes.one(), &path).await), [2]);
    // Or each has its own.
    let place = get(nodes.one(), "/v1/poll?channel=room:2").await["cursor"].clone();
    self::publish(nodes.other(), "room:2", 3).await;
    let path = format!(
        "/v1/poll?channel=room:1&cursor={cursor}&channel=room:2&cursor={}",
        place.as_str().unwrap()
    );
    assert_eq!(payloads(&get(nodes.one(), &path).await), [3]);
}

async fn what_is_sent_again_changes_nothing(nodes: Nodes) {
    let mut client = WebSocket::connect(nodes.one().addr(), "/v1/ws?channel=room:1").await;
    client.expect("welcome").await;
    let path = "/v1/channels/room:1/messages";
    let body = json!({"payload": "once", "messageId": "m1"});
    let first = http::post_json(nodes.one().addr(), path, &body).await.json();
    let again = http::post_json(nodes.other().addr(), path, &body).await.json();
    assert_eq!(again["cursor"], first["cursor"]);
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&Value::Null, &json!(true)));
    let other = json!({"payload": "twice", "messageId": "m1"});
    let conflict = http::post_json(nodes.other().addr(), path, &other).await;
    assert_eq!((conflict.status(), &conflict.json()["code"]), (409, &json!("conflict")));
    let frame = json!({"type": "publish", "id": 1, "channel": "room:1", "payload": "once", "messageId": "m1"});
    let mut publisher = WebSocket::connect(nodes.other().addr(), "/v1/ws").await;
    publisher.expect("welcome").await;
    assert_eq!(publisher.ask(&frame).await["duplicate"], true);
    publish(nodes.one(), "room:1", "after").await;
    assert_eq!(client.expect("message").await["payload"], "once");
    assert_eq!(client.expect("message").await["payload"], "after");
}

async fn what_is_no_longer_kept_is_told(nodes: Nodes) {
    let old = publish(nodes.one(), "short:1", 0).await;
    // Redis trims by whole nodes of its tree.
    for n in 1..=400 {
        publish(nodes.one(), "short:1", n).await;
    }
    let mut client = WebSocket::connect(nodes.other().addr(), "/v1/ws").await;
    client.expect("welcome").await;
    let frame = json!({"type": "subscribe", "id": 1, "channel": "short:1", "cursor": old});
    client.send(&frame).await;
    assert_eq!(client.expect("ack").await["recovered"], false);
    let gap = client.expect("gap").await;
    assert_eq!(gap["after"], old.as_str());
    let mut first = None;
    loop {
        let n = client.expect("message").await["payload"].as_i64().unwrap();
        first.get_or_insert(n);
        if n == 400 {
            break;
        }
    }
    let first = first.unwrap();
    assert!(first > 1, "nothing was trimmed");
    // The gap's cursor is the place from which it goes on: what follows it yields the same.
    let path = format!("/v1/poll?channel=short:1&cursor={}", gap["cursor"].as_str().unwrap());
    let polled = get(nodes.one(), &path).await;
    assert!(polled.get("gaps").is_none());
    assert_eq!(payloads(&polled).first(), Some(&first));
}

async fn a_long_backlog_fits_through_a_small_outbox(nodes: Nodes) {
    let filler = "x".repeat(20_000);
    for n in 0..100 {
        publish(nodes.one(), "room:1", json!([n, filler])).await;
    }
    // 2 MB through an outbox of 1 MiB: it goes on as the client reads.
    let path = "/v1/ws?channel=room:1&rewind=100";
    let mut client = WebSocket::connect(nodes.other().addr(), path).await;
    client.expect("welcome").await;
    let meanwhile = publish(nodes.one(), "room:1", json!([100, ""])).await;
    for n in 0..=100 {
        let message = client.expect("message").await;
        assert_eq!(message["payload"][0], n);
        assert_eq!(message["cursor"] == meanwhile.as_str(), n == 100);
    }
}

async fn places_that_do_not_go_on(nodes: Nodes) {
    let here = publish(nodes.one(), "room:1", 1).await;
    let (id, tag) = here.split_once('.').unwrap();
    let future = format!("9{id}.{tag}");
    let foreign = publish(nodes.one(), "room:2", 1).await;
    let mut client = WebSocket::connect(nodes.other().addr(), "/v1/ws").await;
    client.expect("welcome").await;
    let subscribe =
        |cursor: &str| json!({"type": "subscribe", "id": 1, "channel": "room:1", "cursor": cursor});
    assert_eq!(client.ask(&subscribe(&foreign)).await["code"], "bad_cursor");
    client.send(&subscribe(&future)).await;
    assert_eq!(client.expect("ack").await["recovered"], false);
    assert_eq!(client.expect("gap").await["after"], future.as_str());
    // In the header, which a browser sends for ever, garbage is a gap and no error.
    let header = [("Last-Event-ID", "garbage!")];
    let path = "/v1/sse?channel=room:1&channel=room:2";
    let mut stream = EventStream::open(nodes.other().addr(), path, &header).await;
    stream.expect("tidewire:welcome").await;
    stream.expect("tidewire:gap").await;
    stream.expect("tidewire:gap").await;
    publish(nodes.one(), "room:2", 2).await;
    assert_eq!(stream.expect("message").await.json(), 2);
}

#[tokio::test]
async fn a_new_life_of_the_data_is_told_once() {
    let mut nodes = Nodes::two().await;
    let mut here = WebSocket::connect(nodes.one().addr(), "/v1/ws?channel=room:1").await;
    here.expect("welcome").await;
    let last = publish(nodes.other(), "room:1", 1).await;
    here.expect("message").await;
    let redis = nodes.redis.as_mut().unwrap();
    redis.kill().await;
    redis.restart_empty().await;
    for node in &nodes.all {
        node.wait_ready(200).await;
    }
    let gap = here.expect("gap").await;
    assert_eq!(gap["after"], last.as_str());
    let mut back =
        WebSocket::connect(nodes.other().addr(), &format!("/v1/ws?channel=room:1&cursor={last}"))
            .await;
    assert_eq!(back.expect("welcome").await["channels"][0]["recovered"], false);
    assert_eq!(back.expect("gap").await["after"], last.as_str());
    publish(nodes.one(), "room:1", 2).await;
    for client in [&mut here, &mut back] {
        assert_eq!(client.expect("message").await["payload"], 2);
    }
}

#[tokio::test]
async fn backends_publish_by_a_function() {
    let nodes = Nodes::two().await;
    let redis = nodes.redis.as_ref().unwrap();
    let mut client = WebSocket::connect(nodes.one().addr(), "/v1/ws?channel=room:1").await;
    client.expect("welcome").await;
    let body = r#"{"event":"hi","payload":{"a":1}}"#;
    let call = ["FCALL", "tidewire_publish", "1", "tidewire:room:1", body, "m1"];
    for _ in 0..2 {
        redis.command(&call).await;
    }
    // A plain PUBLISH on a stored channel stays live.
    redis.publish("tidewire:room:1", "\"live\"").await;
    let message = client.expect("message").await;
    assert_eq!((&message["event"], &message["messageId"]), (&json!("hi"), &json!("m1")));
    assert!(message["cursor"].is_string());
    let message = client.expect("message").await;
    assert_eq!((&message["payload"], message.get("cursor")), (&json!("live"), None));
}
