//! What a user, an address, a namespace and all slow clients together may take of a node.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Stdio};

use futures_util::StreamExt as _;
use futures_util::future::select_all;
use serde_json::{Value, json};
use tidewire_testkit::http::{self, Answer};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::tungstenite::Message;
use tidewire_testkit::websocket::{WebSocket, tungstenite};
use tidewire_testkit::{Gateway, Proxy, RedisServer, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A gateway where users log in and may publish everywhere.
async fn gateway(config: &str) -> Gateway {
    Gateway::builder().config(with_logins(config)).start().await
}

fn with_logins(config: &str) -> String {
    let auth = format!(
        "[auth]\napi_keys = [{{ name = \"shop\", key = \"the-key-of-the-shop\" }}]\n\
        [auth.jwt]\nsecret = \"{SECRET}\"\nleeway = \"0s\"\n\
        [namespaces.default]\nsubscribe = \"user\"\npublish = \"user\"\n"
    );
    auth + config
}

fn token(user: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(["token", "--sub", user]).env_clear().stdin(Stdio::null());
    let output = command.env("TIDEWIRE_AUTH__JWT__SECRET", SECRET).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn limited(gateway: &Gateway, limit: &str) -> f64 {
    let name = format!("tidewire_limited_total{{limit=\"{limit}\"}}");
    gateway.metric(&name).await.unwrap_or(0.0)
}

async fn connect(gateway: &Gateway, token: &str) -> Result<WebSocket, u16> {
    match WebSocket::try_connect(gateway.addr(), &format!("/v1/ws?token={token}"), &[]).await {
        Ok(mut ws) => {
            ws.expect("welcome").await;
            Ok(ws)
        }
        Err(error) => match *error {
            tungstenite::Error::Http(response) => Err(response.status().as_u16()),
            other => panic!("{other}"),
        },
    }
}

async fn post(gateway: &Gateway, credential: &str, channel: &str) -> Answer {
    let body = json!({"payload": 1}).to_string();
    let request = format!(
        "POST /v1/channels/{channel}/messages HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
        Content-Type: application/json\r\nContent-Length: {}\r\n\
        Authorization: Bearer {credential}\r\n\r\n{body}",
        gateway.addr(),
        body.len()
    );
    http::raw(gateway.addr(), request.as_bytes()).await
}

#[tokio::test]
async fn a_user_has_so_many_streams_and_no_more() {
    let gateway = gateway("[limits]\nconnections_per_user = 2\n").await;
    let alice = token("alice");
    let first = Held::hold(connect(&gateway, &alice).await.unwrap());
    let path = format!("/v1/sse?channel=a&token={alice}");
    let mut stream = EventStream::open(gateway.addr(), &path, &[]).await;
    stream.expect("tidewire:welcome").await;
    assert_eq!(connect(&gateway, &alice).await.err(), Some(429));
    // An EventSource comes back; who logs in late is closed, not for good: an event stream cannot say
    // whether its client is there.
    let mut third = EventStream::open(gateway.addr(), &path, &[]).await;
    assert!(third.next_block().await.unwrap().retry.is_some());
    let mut late = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    let answer = late.ask(&json!({"type": "auth", "id": 1, "token": alice})).await;
    assert_eq!(answer["code"], "too_many");
    assert_eq!(late.closed().await, 4004);
    assert_eq!(limited(&gateway, "connections_per_user").await, 3.0);
    // Others have their own, backends none, and a refresh takes none.
    let mut bob = connect(&gateway, &token("bob")).await.unwrap();
    for _ in 0..3 {
        let refresh = json!({"type": "auth", "id": 1, "token": token("bob")});
        assert_eq!(bob.ask(&refresh).await["type"], "ack");
    }
    assert!(connect(&gateway, &token("bob")).await.is_ok());
    let mut backends = Vec::new();
    for _ in 0..3 {
        backends.push(connect(&gateway, "the-key-of-the-shop").await.unwrap());
    }
    drop(first);
    soon("the place is free again", async {
        while connect(&gateway, &alice).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until they are let in there.
async fn let_in(gateway: &Gateway, token: &str) -> WebSocket {
    soon("a place", async {
        loop {
            if let Ok(ws) = connect(gateway, token).await {
                return ws;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
}

/// The places of a node that died are free again; while Redis is away each node counts alone.
#[tokio::test]
async fn a_user_has_so_many_streams_on_all_nodes_together() {
    let mut redis = RedisServer::start().await;
    let config = with_logins("[limits]\nconnections_per_user = 4\n");
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Gateway::builder().config(&config).redis(redis.url()).start().await);
    }
    let alice = token("alice");
    let (mut on_a, mut on_b) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        on_a.push(Held::hold(connect(&nodes[0], &alice).await.unwrap()));
        on_b.push(Held::hold(connect(&nodes[1], &alice).await.unwrap()));
    }
    // Both are known before the next one comes, which is the newest.
    let granted = async |user: &str| {
        let key = format!("tidewire:{{node}}:user:{user}");
        let value = redis.command(&["GET", &key]).await;
        if let tidewire_testkit::Reply::Nil = value { String::new() } else { value.text() }
    };
    soon("two and two", async {
        while granted("alice").await.matches("=2").count() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let path = format!("/v1/sse?channel=a&token={alice}");
    let mut stream = EventStream::open(nodes[2].addr(), &path, &[]).await;
    stream.expect("tidewire:welcome").await;
    let mut one_more = connect(&nodes[2], &alice).await.unwrap();
    assert_eq!(one_more.closed().await, 4102);
    stream.ended().await;
    assert_eq!(limited(&nodes[2], "connections_per_user").await, 2.0);
    // From then on before they begin; others are not touched.
    assert_eq!(connect(&nodes[2], &alice).await.err(), Some(429));
    let mut bob = connect(&nodes[2], &token("bob")).await.unwrap();

    nodes[0].kill().await;
    let held = async || Held::hold(let_in(&nodes[2], &alice).await);
    let mut moved = vec![held().await, held().await];
    soon("their place in the books", async {
        while granted("alice").await.matches("=2").count() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    redis.kill().await;
    soon("a node on its own", async {
        while !nodes[2].log().contains("counted on this node alone") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    moved.push(held().await);
    moved.push(held().await);
    assert_eq!(connect(&nodes[2], &alice).await.err(), Some(429), "the node's own limit");
    assert_eq!(bob.ask(&json!({"type": "ping", "id": "p"})).await["type"], "pong");
    assert!(on_b.iter().chain(&moved).all(Held::is_open));
}

/// Redis came back empty, and a stream that had come meanwhile cost one its place that had been there before.
#[tokio::test]
async fn who_comes_while_redis_is_away_costs_nobody_a_place() {
    let mut redis = RedisServer::start().await;
    let config = with_logins("[limits]\nconnections_per_user = 2\n");
    let start = async || Gateway::builder().config(&config).redis(redis.url()).start().await;
    let (a, b) = (start().await, start().await);
    let alice = token("alice");
    let before = [
        Held::hold(connect(&a, &alice).await.unwrap()),
        Held::hold(connect(&b, &alice).await.unwrap()),
    ];
    soon("one and one", async {
        loop {
            let value = redis.command(&["GET", "tidewire:{node}:user:alice"]).await;
            if let tidewire_testkit::Reply::Nil = value {
            } else if value.text().matches("=1").count() == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    redis.kill().await;
    soon("each on its own", async {
        while ![&a, &b].iter().all(|node| node.log().contains("counted on this node alone")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut meanwhile = Held::hold(connect(&b, &alice).await.unwrap());
    redis.restart_empty().await;
    assert_eq!(meanwhile.code().await, 4102);
    assert!(before.iter().all(Held::is_open));
}

/// A WebSocket of a client that does no more than be there: it answers pings.
struct Held(tokio::task::JoinHandle<u16>);

impl Held {
    fn hold(mut ws: WebSocket) -> Self {
        // For as long as its test takes.
        Self(tokio::spawn(async move {
            loop {
                match ws.stream().next().await {
                    Some(Ok(Message::Close(frame))) => {
                        return frame.map_or(1005, |it| it.code.into());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return 1006,
                }
            }
        }))
    }

    fn is_open(&self) -> bool {
        !self.0.is_finished()
    }

    /// The code of its end.
    async fn code(&mut self) -> u16 {
        soon("the end of a session", &mut self.0).await.unwrap()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A node that its client can be cut off from without a word: a lid that closes, a network that changes.
async fn behind_a_proxy(gateway: &Gateway) -> Proxy {
    Proxy::start(gateway.addr()).await
}

async fn connect_through(proxy: &Proxy, token: &str) -> Held {
    let mut ws = WebSocket::connect(proxy.addr(), &format!("/v1/ws?token={token}")).await;
    ws.expect("welcome").await;
    Held::hold(ws)
}

const SILENT: &str =
    "tidewire_connections_closed_total{transport=\"websocket\",reason=\"timeout\"}";

/// At its limit, a laptop was closed; its tabs came back on another node, were taken for too many after six
/// seconds, and stayed away for ever, while nobody was there any more on the first one.
#[tokio::test]
async fn who_comes_back_elsewhere_takes_the_places_of_the_dead() {
    let redis = RedisServer::start().await;
    let config = with_logins("[limits]\nconnections_per_user = 3\n");
    let start = async || Gateway::builder().config(&config).redis(redis.url()).start().await;
    let (a, b) = (start().await, start().await);
    let proxy = behind_a_proxy(&a).await;
    let alice = token("alice");
    let held = async || {
        let value = redis.command(&["GET", "tidewire:{node}:user:alice"]).await;
        if let tidewire_testkit::Reply::Nil = value { String::new() } else { value.text() }
    };
    // Two will be dead, and one on the same node lives.
    let dead = [connect_through(&proxy, &alice).await, connect_through(&proxy, &alice).await];
    let living = Held::hold(connect(&a, &alice).await.unwrap());
    soon("three there", async {
        while !held().await.contains("=3") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    proxy.stall_all();
    let mut back = Vec::new();
    for _ in 0..2 {
        back.push(Held::hold(connect(&b, &alice).await.unwrap()));
    }
    soon("two here, and one there", async {
        while !(held().await.contains("=2") && held().await.contains("=1")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(a.metric(SILENT).await, Some(2.0));
    assert!(living.is_open() && back.iter().all(Held::is_open));
    // Who is really one too many is told so for good, and nobody else is touched.
    let mut one_more = Held::hold(connect(&b, &alice).await.unwrap());
    assert_eq!(one_more.code().await, 4102);
    assert_eq!(connect(&b, &alice).await.err(), Some(429));
    assert!(living.is_open() && back.iter().all(Held::is_open));
    assert_eq!(limited(&a, "connections_per_user").await, 0.0);
    drop(dead);
}

/// On the same node the newcomer waits until those who are counted have answered, or have not.
#[tokio::test]
async fn who_comes_back_to_the_same_node_takes_the_places_of_the_dead() {
    let gateway = gateway("[limits]\nconnections_per_user = 2\n").await;
    let proxy = behind_a_proxy(&gateway).await;
    let alice = token("alice");
    let dead = [connect_through(&proxy, &alice).await, connect_through(&proxy, &alice).await];
    proxy.stall_all();
    let mut back = vec![Held::hold(connect(&gateway, &alice).await.unwrap())];
    // Also who logs in with its first frame.
    let mut late = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    let auth = json!({"type": "auth", "id": 1, "token": alice});
    assert_eq!(late.ask(&auth).await["type"], "ack");
    back.push(Held::hold(late));
    assert_eq!(gateway.metric(SILENT).await, Some(2.0));
    // All are there: that is known at once, and for good, once they have been asked.
    soon("a final refusal", async {
        loop {
            let mut late = WebSocket::connect(gateway.addr(), "/v1/ws").await;
            assert_eq!(late.ask(&auth).await["code"], "too_many");
            match late.closed().await {
                4102 => break,
                code => assert_eq!(code, 4004),
            }
        }
    })
    .await;
    assert_eq!(connect(&gateway, &alice).await.err(), Some(429));
    assert!(back.iter().all(Held::is_open));
    drop(dead);
}

/// An event stream's client says nothing; where the other end of its connection takes nothing any more, the
/// kernel finds that out, and the newcomer has its place.
#[tokio::test]
async fn an_event_stream_whose_connection_is_dead_gives_way() {
    let bounds = "frames_per_second = 0\nbytes_per_second = \"1GiB\"\noutbox_bytes = \"64MiB\"\noutbox_messages = 10000\n";
    let live = "[namespaces.live]\nhistory_size = 0\nsubscribe = \"user\"\n";
    let limits = format!("[limits]\nconnections_per_user = 2\n{bounds}{live}");
    let gateway = gateway(&limits).await;
    let alice = token("alice");
    let path = format!("/v1/sse?channel=live:a&token={alice}");
    let mut living = EventStream::open(gateway.addr(), &path, &[]).await;
    living.expect("tidewire:welcome").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut dead = socket.connect(gateway.addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.addr());
    dead.write_all(request.as_bytes()).await.unwrap();
    soon("its head", dead.readable()).await.unwrap();
    // More than the kernel keeps for one that does not read.
    let reading = tokio::spawn(async move {
        for _ in 0..250 {
            living.expect("message").await;
        }
        living
    });
    let mut backend = connect(&gateway, "the-key-of-the-shop").await.unwrap();
    let payload = "x".repeat(48 << 10);
    for id in 0..250 {
        let publish = json!({"type": "publish", "id": id, "channel": "live:a", "payload": payload});
        assert_eq!(backend.ask(&publish).await["type"], "ack");
    }
    let _living = reading.await.unwrap();
    let newcomer = Held::hold(connect(&gateway, &alice).await.unwrap());
    let silent = "tidewire_connections_closed_total{transport=\"sse\",reason=\"timeout\"}";
    assert_eq!(gateway.metric(silent).await, Some(1.0));
    // The other one is not touched; nor is it known to be there.
    let mut late = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    let answer = late.ask(&json!({"type": "auth", "id": 1, "token": alice})).await;
    assert_eq!(answer["code"], "too_many");
    assert_eq!(late.closed().await, 4004);
    assert!(newcomer.is_open());
    assert_eq!(gateway.metric(silent).await, Some(1.0));
}

#[tokio::test]
async fn an_address_makes_so_many_connections_in_a_second() {
    let gateway = Gateway::builder().config("[limits]\nhandshakes_per_second = 2\n").start().await;
    let mut refused = None;
    for n in 0..50 {
        // It is answered before it has asked, where it is over the limit.
        let socket = tokio::net::TcpStream::connect(gateway.addr()).await.unwrap();
        drop(socket);
        if limited(&gateway, "handshakes_per_second").await > 0.0 {
            refused = Some(n);
            break;
        }
    }
    assert!(refused.is_some_and(|n| n >= 3), "{refused:?}");
    let answer = http::raw(gateway.addr(), b"").await;
    assert_eq!((answer.status(), &answer.json()["code"]), (429, &json!("too_fast")));
    assert_eq!(answer.head.header("retry-after"), Some("1"));
    soon("a second later", async {
        while WebSocket::try_connect(gateway.addr(), "/v1/ws", &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_pace() {
    let gateway = Gateway::builder()
        .config("[auth]\nmode = \"open\"\n[limits]\nhandshakes_per_second = 1\ntrusted_proxies = [\"127.0.0.0/8\"]\n")
        .start()
        .await;
    let connect = async |client: &str| {
        let headers = [("X-Forwarded-For", client)];
        WebSocket::try_connect(gateway.addr(), "/v1/ws", &headers).await.is_ok()
    };
    let mut got_in = 0;
    while connect("203.0.113.7").await {
        got_in += 1;
        assert!(got_in < 50);
    }
    assert!(got_in >= 2);
    assert!(connect("203.0.113.8").await, "another client");
    assert!(limited(&gateway, "handshakes_per_second").await >= 1.0);
}

#[tokio::test]
async fn who_guesses_is_not_listened_to_for_a_while() {
    let gateway = gateway("[limits]\nfailed_logins_per_minute = 2\n").await;
    let alice = token("alice");
    for _ in 0..4 {
        assert_eq!(post(&gateway, "no-such-key-of-anybody", "a").await.status(), 401);
    }
    // Whatever comes next from there is not looked at, on no path.
    for credential in ["no-such-key-of-anybody", &alice] {
        let answer = post(&gateway, credential, "a").await;
        assert_eq!((answer.status(), &answer.json()["code"]), (429, &json!("too_fast")));
        assert!(answer.head.header("retry-after").is_some());
    }
    assert_eq!(connect(&gateway, &alice).await.err(), Some(429));
    let mut late = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    let answer = late.ask(&json!({"type": "auth", "id": 1, "token": alice})).await;
    assert_eq!(answer["code"], "too_fast");
    assert!(limited(&gateway, "failed_logins_per_minute").await >= 4.0);
}

async fn failed(gateway: &Gateway, address: &str) -> Option<f64> {
    gateway.metric(&format!("tidewire_failed_logins_total{{address=\"{address}\"}}")).await
}

/// Where a proxy does not say who its clients are, one who guesses must not lock out all of them.
#[tokio::test]
async fn guesses_of_who_is_hidden_by_a_proxy_are_counted_and_lock_nobody_out() {
    let limits = "[limits]\nfailed_logins_per_minute = 2\n";
    let gateway = gateway(&format!("{limits}trusted_proxies = [\"127.0.0.0/8\"]\n")).await;
    for _ in 0..6 {
        assert_eq!(post(&gateway, "no-such-key-of-anybody", "a").await.status(), 401);
    }
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    let auth = json!({"type": "auth", "id": 1, "token": "no-such-key-of-anybody"});
    assert_eq!(ws.ask(&auth).await["code"], "unauthorized");
    assert_eq!(post(&gateway, &token("alice"), "a").await.status(), 200);
    let counts = (failed(&gateway, "uncounted").await, failed(&gateway, "counted").await);
    assert_eq!(counts, (Some(7.0), Some(0.0)));
    assert_eq!(limited(&gateway, "failed_logins_per_minute").await, 0.0);
}

#[tokio::test]
async fn first_frames_that_fail_count_as_failed_logins() {
    let gateway = gateway("[limits]\nfailed_logins_per_minute = 2\n").await;
    for _ in 0..4 {
        let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
        let auth = json!({"type": "auth", "id": 1, "token": "no-such-key-of-anybody"});
        assert_eq!(ws.ask(&auth).await["code"], "unauthorized");
        assert_eq!(ws.closed().await, 4100);
    }
    assert_eq!(post(&gateway, &token("alice"), "a").await.status(), 429);
    assert_eq!(failed(&gateway, "counted").await, Some(4.0));
}

#[tokio::test]
async fn a_user_publishes_so_much_over_all_connections() {
    let gateway = gateway("[limits]\npublishes_per_user = 2\n").await;
    let alice = token("alice");
    let mut one = connect(&gateway, &alice).await.unwrap();
    let mut other = connect(&gateway, &alice).await.unwrap();
    let publish = |id: u32| json!({"type": "publish", "id": id, "channel": "a", "payload": 1});
    let mut told: Option<Value> = None;
    for id in 0..30 {
        let answer = if id % 2 == 0 { &mut one } else { &mut other }.ask(&publish(id)).await;
        if answer["type"] == "error" {
            assert!(id >= 4, "{answer}");
            told = Some(answer);
            break;
        }
    }
    let told = told.expect("a limit");
    assert_eq!((&told["code"], &told["retry"]), (&json!("too_fast"), &json!(1_000)));
    let answer = post(&gateway, &alice, "a").await;
    assert_eq!((answer.status(), &answer.json()["code"]), (429, &json!("too_fast")));
    assert_eq!(post(&gateway, &token("bob"), "a").await.status(), 200);
    for _ in 0..6 {
        assert_eq!(post(&gateway, "the-key-of-the-shop", "a").await.status(), 200);
    }
    // It is no error for which a session is closed.
    for id in 0..15 {
        one.ask(&publish(id)).await;
    }
    assert_eq!(one.ask(&json!({"type": "ping", "id": "p"})).await["type"], "pong");
    assert!(limited(&gateway, "publishes_per_user").await >= 2.0);
}

/// The welcome names what is less, and nothing where there is no limit.
#[tokio::test]
async fn a_client_is_told_its_pace() {
    let welcome = async |gateway: &Gateway, path: &str| {
        WebSocket::connect(gateway.addr(), path).await.expect("welcome").await
    };
    let path = format!("/v1/ws?token={}", token("alice"));
    let bytes = 1 << 20;
    for (limits, pace) in [
        ("", json!({"frames": 100, "bytes": bytes})),
        ("[limits]\npublishes_per_user = 50\n", json!({"frames": 50, "bytes": bytes})),
        ("[limits]\nframes_per_second = 0\npublishes_per_user = 0\n", json!({"bytes": bytes})),
    ] {
        let gateway = gateway(limits).await;
        assert_eq!(welcome(&gateway, &path).await["pace"], pace, "{limits}");
        // A backend is no user.
        let key = welcome(&gateway, "/v1/ws?token=the-key-of-the-shop").await;
        assert_eq!(key["pace"]["bytes"], bytes);
        assert_ne!(key["pace"]["frames"], 50);
    }
    let open = Gateway::builder().start().await;
    let frame = welcome(&open, "/v1/ws").await;
    assert!(frame.get("pace").is_none(), "{frame}");
}

/// There may be room again within a batch: what was refused would be sent again behind what was not.
#[tokio::test]
async fn a_batch_that_is_too_fast_keeps_its_order() {
    let gateway = gateway("[limits]\npublishes_per_user = 300\n").await;
    let messages: Vec<_> = (0..100).map(|n| json!({"channel": "a", "payload": n})).collect();
    let body = json!({ "messages": messages }).to_string();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
        Content-Length: {}\r\n\r\n{body}",
        token("alice"),
        body.len()
    );
    let mut cut = 0;
    // Until several were cut in the middle, however fast this machine is.
    while cut < 20 {
        let answer = http::raw(gateway.addr(), request.as_bytes()).await;
        let answer = answer.json();
        let results = answer["results"].as_array().unwrap();
        let first = results.iter().position(|one| !one["code"].is_null()).unwrap_or(100);
        cut += usize::from((1..100).contains(&first));
        for refused in &results[first..] {
            assert_eq!(refused["code"], "too_fast", "{first}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_namespace_takes_so_much_from_its_clients() {
    let gateway = gateway(
        "[namespaces.room]\npublish = \"user\"\npublishes_per_second = 2\n\
        [namespaces.closed]\npublishes_per_second = 2\n",
    )
    .await;
    let (alice, bob) = (token("alice"), token("bob"));
    let mut refused = None;
    for n in 0..30 {
        let user = if n % 2 == 0 { &alice } else { &bob };
        let answer = post(&gateway, user, &format!("room:{n}")).await;
        if answer.status() != 200 {
            assert_eq!((answer.status(), &answer.json()["code"]), (429, &json!("too_fast")));
            refused = Some(n);
            break;
        }
    }
    assert!(refused.is_some_and(|n| n >= 4), "{refused:?}");
    assert!(limited(&gateway, "publishes_per_second").await >= 1.0);
    // Neither the application nor another namespace is held up; who may not publish uses nothing up.
    for _ in 0..6 {
        assert_eq!(post(&gateway, "the-key-of-the-shop", "room:1").await.status(), 200);
        assert_eq!(post(&gateway, &alice, "closed:1").await.status(), 403);
    }
    assert_eq!(post(&gateway, &alice, "other").await.status(), 200);
}

#[tokio::test]
async fn all_slow_clients_together_have_a_bound() {
    let gateway = Gateway::builder()
        .config(
            "[limits]\noutbox_bytes = \"16MiB\"\noutbox_messages = 100000\noutbox_total = \"1MiB\"\n\
            [namespaces.live]\nhistory_size = 0\n",
        )
        .start()
        .await;
    let mut slow = WebSocket::connect(gateway.addr(), "/v1/ws?channel=live:big").await;
    slow.expect("welcome").await;
    let mut honest = WebSocket::connect(gateway.addr(), "/v1/ws?channel=live:small").await;
    honest.expect("welcome").await;
    let mut publisher = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    publisher.expect("welcome").await;
    let padding = "x".repeat(48 << 10);
    let mut sent = 0;
    while limited(&gateway, "outbox_total").await == 0.0 {
        for _ in 0..10 {
            let big =
                json!({"type": "publish", "id": 1, "channel": "live:big", "payload": padding});
            assert_eq!(publisher.ask(&big).await["type"], "ack");
        }
        sent += 10;
        assert!(sent < 10_000, "a client that does not read costs nothing");
    }
    let closed = "tidewire_connections_closed_total{transport=\"websocket\",reason=\"slow\"}";
    soon("the end of the session", async {
        while gateway.metric(closed).await != Some(1.0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(slow.closed().await, 4000);
    // Who reads is not touched.
    let small = json!({"type": "publish", "id": 1, "channel": "live:small", "payload": "hi"});
    assert_eq!(publisher.ask(&small).await["type"], "ack");
    assert_eq!(honest.expect("message").await["payload"], "hi");
}

/// How a client asks for pages that it does not read.
#[derive(Debug, Clone, Copy)]
enum Greed {
    /// Requests one behind the other.
    Http1,
    /// On streams whose windows are closed.
    Closed,
    /// On streams whose windows are as open as can be.
    Open,
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

impl Greed {
    /// A hundred requests for a page: more than any kernel takes.
    fn bytes(self, path: &str) -> Vec<u8> {
        let window: u32 = match self {
            Self::Http1 => {
                return format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    .repeat(100)
                    .into();
            }
            Self::Closed => 0,
            Self::Open => (1 << 31) - 1,
        };
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(h2_frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat()));
        bytes.extend(h2_frame(8, 0, 0, &(window.max(1 << 16) - (1 << 16) + 1).to_be_bytes()));
        for n in 0..100 {
            let mut head = vec![0x82, 0x86, 0x04, path.len() as u8];
            head.extend(path.as_bytes());
            head.extend(b"\x01\x09localhost");
            bytes.extend(h2_frame(1, 5, 2 * n + 1, &head));
        }
        bytes
    }
}

/// Pages of history waited in memory and counted nowhere: over HTTP/1 one for each connection, over HTTP/2 two,
/// or with wide windows 400 KB for each of its 128 streams.
#[tokio::test]
async fn answers_that_nobody_reads_count_too() {
    for greed in [Greed::Http1, Greed::Closed, Greed::Open] {
        let gateway =
            Gateway::builder().config("[limits]\noutbox_total = \"1MiB\"\n").start().await;
        let path = "/v1/channels/a/messages";
        for _ in 0..10 {
            let body = json!({"payload": "x".repeat(60_000)});
            assert_eq!(http::post_json(gateway.addr(), path, &body).await.status(), 200);
        }
        let mut honest = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
        honest.expect("welcome").await;
        let mut greedy = Vec::new();
        // The kernel takes the same of each, so that it depends on a page's size how much of one is left.
        for n in 0..24 {
            let limit = 3 + n % 6;
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4 << 10).unwrap();
            let mut socket = socket.connect(gateway.addr()).await.unwrap();
            socket.write_all(&greed.bytes(&format!("{path}?limit={limit}"))).await.unwrap();
            greedy.push(socket);
        }
        soon(&format!("an end by the bound: {greed:?}"), async {
            while limited(&gateway, "outbox_total").await == 0.0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // One who is over it is cut off; what was on the way to it may still come.
        let ends = greedy.into_iter().map(|mut socket| {
            Box::pin(async move {
                let _ = socket.read_to_end(&mut Vec::new()).await;
            })
        });
        soon("the end of one", select_all(ends)).await;
        // Who reads is not touched, also with a page as large.
        let page = http::get(gateway.addr(), &format!("{path}?limit=1000")).await.json();
        assert!(page["messages"].as_array().unwrap().len() > 5);
        let body = json!({"payload": "small"});
        assert_eq!(http::post_json(gateway.addr(), path, &body).await.status(), 200);
        assert_eq!(honest.expect("message").await["payload"], "small");
    }
}
