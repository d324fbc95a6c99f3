//! What who is logged in may do.

use serde_json::{Value, json};
use tidewire_testkit::Gateway;
use tidewire_testkit::http;
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;

use super::*;

/// Where everybody is let in, credentials still guard what is for operators and what is for one user.
#[tokio::test]
async fn open_mode_with_credentials_keeps_what_needs_them() {
    let config = format!(
        "[auth]\nmode = \"open\"\npersonal_namespace = \"user\"\njwt.secret = \"{SECRET}\"\n\
        api_keys = [{{ name = \"shop\", key = \"the-key-of-the-shop\" }}]"
    );
    let gateway = Gateway::builder().config(config).start().await;
    let (shop, alice) = ("the-key-of-the-shop", token(&["--sub", "alice"]));
    is(&http::get(gateway.addr(), "/v1/channels").await, 401, "unauthorized");
    is(&get_as(&gateway, &alice, "/v1/channels").await, 403, "forbidden");
    assert_eq!(get_as(&gateway, shop, "/v1/channels").await.status(), 200);

    let forged = || json!({"payload": "you won"});
    let path = "/v1/channels/user:alice/messages";
    is(&http::post_json(gateway.addr(), path, &forged()).await, 401, "unauthorized");
    let bob = token(&["--sub", "bob"]);
    is(&publish_as(&gateway, &bob, "user:alice", forged()).await, 403, "forbidden");
    assert_eq!(publish_as(&gateway, shop, "user:alice", forged()).await.status(), 200);
    assert_eq!(publish_as(&gateway, &bob, "news", forged()).await.status(), 200);
    let bob = token(&["--sub", "bob", "--publish", "user:*"]);
    assert_eq!(publish_as(&gateway, &bob, "user:alice", forged()).await.status(), 200);
}

/// Every welcome and message shows how a cursor is made, so a made-up one must not read what is kept.
#[tokio::test]
async fn a_made_up_cursor_is_no_way_to_history() {
    let gateway = gateway().await;
    let alice = alice();
    let publish = async |payload: &str| {
        let credential = token(&["--sub", "bob", "--publish", "quiet:*"]);
        let answer = publish_as(&gateway, &credential, "quiet:1", json!({"payload": payload}));
        answer.await.json()["cursor"].as_str().unwrap().to_owned()
    };
    let first = publish("secret").await;
    let mut place = publish("kept").await;
    let (ms, rest) = first.split_once('-').unwrap();
    let before = format!("{}-{rest}", ms.parse::<u64>().unwrap() - 1);
    let tag = rest.split_once('.').unwrap().1;
    for made_up in [format!("1-0.{tag}"), before] {
        let path = format!("/v1/poll?channel=quiet:1&token={alice}&cursor={made_up}&wait=0");
        let answer = http::get(gateway.addr(), &path).await.json();
        assert_eq!(answer["messages"], json!([]), "{made_up}");
        assert_eq!(answer["gaps"][0]["cursor"], place.as_str(), "{answer}");
        let path = format!("/v1/sse?channel=quiet:1&token={alice}&cursor={made_up}");
        let mut stream = EventStream::open(gateway.addr(), &path, &[]).await;
        stream.expect("tidewire:welcome").await;
        stream.expect("tidewire:gap").await;
        let mut ws = WebSocket::connect(gateway.addr(), &format!("/v1/ws?token={alice}")).await;
        ws.expect("welcome").await;
        let ask = json!({"type": "subscribe", "id": 1, "channel": "quiet:1", "cursor": made_up});
        let ack = ws.ask(&ask).await;
        assert_eq!((&ack["type"], &ack["recovered"]), (&json!("ack"), &json!(false)), "{ack}");
        // The first that comes is the next that is published.
        let next = publish("next").await;
        let message = ws.wait_for("a message", |frame| frame["type"] == "message").await;
        assert_eq!(message["cursor"], next.as_str(), "{message}");
        let message = stream.next_event().await;
        assert!(message.data.as_deref().unwrap().contains("next"), "{message:?}");
        let path = format!("/v1/poll?channel=quiet:1&token={alice}&cursor={place}&wait=0");
        let answer = http::get(gateway.addr(), &path).await.json();
        assert_eq!(answer["messages"][0]["payload"], "next", "its own place goes on");
        place = next;
    }
}

#[tokio::test]
async fn rules_about_names_and_sizes_hold() {
    let gateway = gateway().await;
    let bob = token(&["--sub", "bob"]);
    let tick = |payload: &str| json!({"event": "tick", "payload": payload});
    assert_eq!(publish_as(&gateway, &bob, "small:1", tick("x")).await.status(), 200);
    is(&publish_as(&gateway, &bob, "small:1", tick("0123456789")).await, 413, "too_large");
    let other = json!({"event": "tock", "payload": 1});
    is(&publish_as(&gateway, &bob, "small:1", other).await, 403, "forbidden");
}

/// Each publisher has messageIds of its own: nobody's message is taken for another's.
#[tokio::test]
async fn message_ids_are_the_publishers_own() {
    let gateway = gateway().await;
    let message = |n: u32| json!({"payload": n, "messageId": "m1"});
    let bob = token(&["--sub", "bob", "--publish", "room:42"]);
    let (alice, shop) = (alice(), "the-key-of-the-shop");
    let first = publish_as(&gateway, &alice, "room:42", message(1)).await.json();
    let again = publish_as(&gateway, &alice, "room:42", message(1)).await.json();
    assert_eq!((&again["duplicate"], &again["cursor"]), (&json!(true), &first["cursor"]));
    is(&publish_as(&gateway, &alice, "room:42", message(2)).await, 409, "conflict");
    for other in [&*bob, shop, "hello-i-am-a-hashed-key"] {
        let answer = publish_as(&gateway, other, "room:42", message(1)).await.json();
        assert_eq!(answer["duplicate"], Value::Null, "{answer}");
        assert_ne!(answer["cursor"], first["cursor"]);
    }
}

#[tokio::test]
async fn everybody_has_a_channel_of_their_own() {
    let gateway = gateway().await;
    let greedy = token(&["--sub", "bob", "--subscribe", "*", "--channel", "public:{sub}"]);
    let path = format!("/v1/ws?channel=user:alice&channel=public:1&token={greedy}");
    let mut ws = WebSocket::connect(gateway.addr(), &path).await;
    let welcome = ws.expect("welcome").await;
    let named: Vec<_> = (0..3).map(|n| welcome["channels"][n]["channel"].clone()).collect();
    assert_eq!(named, ["public:1", "user:bob", "public:bob"]);
    let denied = ws.expect("unsubscribed").await;
    assert_eq!((&denied["channel"], &denied["code"]), (&json!("user:alice"), &json!("forbidden")));
    let history = json!({"type": "history", "id": 1, "channel": "user:alice"});
    assert_eq!(ws.ask(&history).await["code"], "forbidden");
    // With nothing in its address a stream of theirs has its own channels.
    let path = format!("/v1/sse?token={greedy}");
    let mut stream = EventStream::open(gateway.addr(), &path, &[]).await;
    let welcome = stream.expect("tidewire:welcome").await.json();
    assert_eq!(welcome["channels"].as_array().map(Vec::len), Some(2));
    let shop = "the-key-of-the-shop";
    let hi = json!({"event": "hi", "payload": 1});
    assert_eq!(publish_as(&gateway, shop, "user:bob", hi).await.status(), 200);
    let id = stream.expect("hi").await.id.unwrap();
    // What comes while it is away is caught up on, also there.
    drop(stream);
    let next = json!({"event": "next", "payload": 2});
    assert_eq!(publish_as(&gateway, shop, "user:bob", next).await.status(), 200);
    let mut stream =
        EventStream::open(gateway.addr(), &path, &[("Last-Event-ID", id.as_str())]).await;
    stream.expect("tidewire:welcome").await;
    assert_eq!(stream.expect("next").await.json(), 2);
}

#[tokio::test]
async fn in_open_mode_a_token_gives_the_identity_all_the_same() {
    let config = format!(
        "[auth]\nmode = \"open\"\njwt.secret = \"{SECRET}\"\n\
        [namespaces.members]\nsubscribe = \"user\"\npublish = \"granted\"\n"
    );
    let gateway = Gateway::builder().config(config).start().await;
    let post = async |path: &str| http::post(gateway.addr(), path, "text/plain", b"hi").await;
    assert_eq!(post("/v1/channels/news/messages").await.status(), 200);
    let refused = post("/v1/channels/members:1/messages").await;
    is(&refused, 401, "unauthorized");
    assert!(refused.head.header("www-authenticate").is_some());
    is(&get_as(&gateway, "nonsense", "/v1/channels").await, 401, "unauthorized");

    // A session that began as nobody's becomes alice's.
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=news").await;
    assert_eq!(ws.expect("welcome").await["user"], Value::Null);
    let subscribe = json!({"type": "subscribe", "id": 1, "channel": "members:1"});
    assert_eq!(ws.ask(&subscribe).await["code"], "unauthorized");
    ws.ask(&json!({"type": "auth", "id": 2, "token": token(&["--sub", "alice"])})).await;
    assert_eq!(ws.ask(&subscribe).await["type"], "ack");
    let publish = json!({"type": "publish", "id": 3, "channel": "members:1", "payload": 1});
    assert_eq!(ws.ask(&publish).await["code"], "forbidden");
}
