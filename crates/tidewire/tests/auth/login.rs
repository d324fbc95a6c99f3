//! When a session logs in, and when its login ends.

use serde_json::json;
use tidewire_testkit::Gateway;
use tidewire_testkit::http;
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tokio::net::TcpListener;

use super::pairs::ed;
use super::*;

#[tokio::test]
async fn the_first_frame_logs_in() {
    the_first_frame_logs_in_over("tidewire.json").await;
}

#[tokio::test]
async fn the_first_frame_logs_in_over_messagepack() {
    the_first_frame_logs_in_over("tidewire.msgpack").await;
}

async fn the_first_frame_logs_in_over(subprotocol: &str) {
    let gateway = gateway().await;
    let (path, headers) =
        ("/v1/ws?channel=room:1&channel=other", [("Sec-WebSocket-Protocol", subprotocol)]);
    let mut ws = WebSocket::try_connect(gateway.addr(), path, &headers).await.unwrap();
    let ack = ws.ask(&json!({"type": "auth", "id": 1, "token": alice()})).await;
    assert_eq!(ack["type"], "ack");
    assert!(ack["expires"].is_string(), "{ack}");
    let welcome = ws.expect("welcome").await;
    assert_eq!((&welcome["user"], &welcome["expires"]), (&json!("alice"), &ack["expires"]));
    assert_eq!(welcome["channels"][0]["channel"], "room:1");
    assert_eq!(welcome["channels"][1]["channel"], "user:alice");
    let denied = ws.expect("unsubscribed").await;
    assert_eq!((&denied["channel"], &denied["code"]), (&json!("other"), &json!("forbidden")));
    let shop = "the-key-of-the-shop";
    assert_eq!(publish_as(&gateway, shop, "room:1", json!({"payload": 7})).await.status(), 200);
    assert_eq!(ws.expect("message").await["payload"], 7);

    // The session is alice's: nobody else's token changes that, and a bad one changes nothing.
    let bob = token(&["--sub", "bob", "--subscribe", "*"]);
    let answer = ws.ask(&json!({"type": "auth", "id": 2, "token": bob})).await;
    assert_eq!(answer["code"], "forbidden");
    let answer = ws.ask(&json!({"type": "auth", "id": 3, "token": "nonsense"})).await;
    assert_eq!(answer["code"], "unauthorized");
    // One that grants less takes away what it does not grant any more.
    let less = token(&["--sub", "alice"]);
    assert_eq!(ws.ask(&json!({"type": "auth", "id": 4, "token": less})).await["type"], "ack");
    let gone = ws.expect("unsubscribed").await;
    assert_eq!((&gone["channel"], &gone["code"]), (&json!("room:1"), &json!("forbidden")));
    assert_eq!(publish_as(&gateway, shop, "room:1", json!({"payload": 8})).await.status(), 200);
    assert_eq!(publish_as(&gateway, shop, "user:alice", json!({"payload": 9})).await.status(), 200);
    assert_eq!(ws.expect("message").await["payload"], 9);
}

#[tokio::test]
async fn a_session_that_does_not_log_in_ends() {
    let hurried = CONFIG.replace("[auth.jwt]", "login_timeout = \"1s\"\n[auth.jwt]");
    let gateway = Gateway::builder().config(hurried.replace("HASH", &"0".repeat(64))).start().await;
    let frame = json!({"type": "subscribe", "id": 1, "channel": "public:1"});
    let wrong = json!({"type": "auth", "id": 1, "token": "nonsense"});
    let expired = json!({"type": "auth", "id": 1, "token": token(&["--sub", "a", "--ttl", "0s"])});
    for (frame, code, close) in
        [(frame, "unauthorized", 4100), (wrong, "unauthorized", 4100), (expired, "expired", 4002)]
    {
        let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=public:1").await;
        assert_eq!(ws.ask(&frame).await["code"], code);
        assert_eq!(ws.closed().await, close);
    }
    let mut silent = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    assert_eq!(silent.closed().await, 4100);
    let closed =
        r#"tidewire_connections_closed_total{transport="websocket",reason="unauthorized"}"#;
    assert_eq!(gateway.metric(closed).await, Some(3.0));
}

#[tokio::test]
async fn a_login_ends_unless_it_is_refreshed() {
    let gateway = gateway().await;
    let short = || token(&["--sub", "alice", "--ttl", "4s", "--subscribe", "room:*"]);
    let path = |channel: &str| format!("/v1/ws?channel={channel}&token={}", short());
    let mut ends = WebSocket::connect(gateway.addr(), &path("room:1")).await;
    let packed = [("Sec-WebSocket-Protocol", "tidewire.msgpack")];
    let stays = WebSocket::try_connect(gateway.addr(), &path("room:2"), &packed).await;
    let mut stays = stays.unwrap();
    let sse = path("room:3").replace("/ws", "/sse");
    let mut stream = EventStream::open(gateway.addr(), &sse, &[]).await;
    ends.expect("welcome").await;
    stays.expect("welcome").await;
    stream.expect("tidewire:welcome").await;
    let told = stays.expect("expiring").await;
    assert!(told["expires"].is_string(), "{told}");
    let ack = stays.ask(&json!({"type": "auth", "id": 1, "token": alice()})).await;
    assert!(ack["expires"].as_str() > told["expires"].as_str(), "{ack} {told}");
    ends.expect("expiring").await;
    assert_eq!(ends.closed().await, 4002);
    stream.expect("tidewire:expiring").await;
    assert!(stream.next_block().await.is_none(), "the stream goes on");
    let shop = "the-key-of-the-shop";
    publish_as(&gateway, shop, "room:2", json!({"payload": 1})).await;
    assert_eq!(stays.expect("message").await["payload"], 1);
    for transport in ["websocket", "sse"] {
        let closed = format!(
            r#"tidewire_connections_closed_total{{transport="{transport}",reason="expired"}}"#
        );
        assert_eq!(gateway.metric(&closed).await, Some(1.0), "{transport}");
    }
}

#[tokio::test]
async fn a_poll_that_waits_ends_with_its_token() {
    let gateway = gateway().await;
    let path = format!("/v1/poll?channel=room:1&token={}", alice());
    let place =
        http::get(gateway.addr(), &path).await.json()["cursor"].as_str().unwrap().to_owned();
    let short = token(&["--sub", "alice", "--subscribe", "room:*", "--ttl", "2s"]);
    let path = format!("/v1/poll?channel=room:1&token={short}&cursor={place}&wait=30");
    let begun = std::time::Instant::now();
    let answer = http::get(gateway.addr(), &path).await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    // As when nothing came: the place is told, and the next poll needs another token.
    assert_eq!((answer.status(), &answer.json()["cursor"]), (200, &json!(place)));
    is(&http::get(gateway.addr(), &path).await, 401, "expired");
}

#[tokio::test]
async fn who_logs_in_late_gets_their_own_channels() {
    let config = format!(
        "[auth]\nmode = \"open\"\npersonal_namespace = \"user\"\njwt.secret = \"{SECRET}\"\n\
        api_keys = [{{ name = \"shop\", key = \"the-key-of-the-shop\" }}]\n"
    );
    let gateway = Gateway::builder().config(config).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=news").await;
    ws.expect("welcome").await;
    let login = |id: u32| {
        let token = token(&["--sub", "carol", "--channel", "news", "--channel", "sport"]);
        json!({"type": "auth", "id": id, "token": token})
    };
    assert_eq!(ws.ask(&login(1)).await["type"], "ack");
    // Each is named with its place once it is confirmed; what it had it has once.
    let (one, other) = (ws.expect("position").await, ws.expect("position").await);
    let mut named = [one["channel"].as_str().unwrap(), other["channel"].as_str().unwrap()];
    named.sort_unstable();
    assert_eq!(named, ["sport", "user:carol"]);
    for channel in ["user:carol", "sport", "news"] {
        let answer = publish_as(&gateway, "the-key-of-the-shop", channel, json!({"payload": 1}));
        assert_eq!(answer.await.status(), 200);
        assert_eq!(ws.expect("message").await["channel"], channel);
    }
    // A refresh brings none back.
    let leave = json!({"type": "unsubscribe", "id": 2, "channel": "sport"});
    assert_eq!(ws.ask(&leave).await["type"], "ack");
    assert_eq!(ws.ask(&login(3)).await["type"], "ack");
    let again = json!({"type": "subscribe", "id": 4, "channel": "sport"});
    assert_eq!(ws.ask(&again).await["type"], "ack");
}

/// A provider that does not answer is no way to stay without logging in.
#[tokio::test]
async fn time_to_log_in_is_not_had_twice() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", silent.local_addr().unwrap());
    let config = format!("[auth]\nlogin_timeout = \"1s\"\njwt.jwks_url = \"{url}\"\n");
    let gateway = Gateway::builder().config(config).unready().start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    let login = json!({"type": "auth", "id": 1, "token": ed("one").token()});
    assert_eq!(ws.ask(&login).await["code"], "unavailable");
    assert_eq!(ws.closed().await, 4003);
}
