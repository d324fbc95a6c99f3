use super::*;
use crate::{Event, MessageId, Payload};

fn parse(text: &str) -> ClientFrame {
    ClientFrame::parse_json(text).unwrap()
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

#[test]
fn frames_of_the_protocol() {
    let frame = parse(r#"{"type":"subscribe","id":1,"channel":"room:42"}"#);
    assert_eq!(frame.id.unwrap().as_json(), "1");
    let subscribe = |cursor: Option<&str>, rewind| {
        let cursor = cursor.map(Into::into);
        Request::Subscribe { channel: channel("room:42"), cursor, rewind }
    };
    assert_eq!(frame.request, subscribe(None, None));
    let frame = parse(r#"{"type":"subscribe","channel":"room:42","cursor":"1-0.x"}"#);
    assert_eq!(frame.request, subscribe(Some("1-0.x"), None));
    for (text, rewind) in [
        ("3", Rewind::Last(3)),
        ("\"3\"", Rewind::Last(3)),
        ("\"1970-01-01T00:00:01Z\"", Rewind::Since(1_000)),
    ] {
        let frame = format!(r#"{{"type":"subscribe","channel":"room:42","rewind":{text}}}"#);
        assert_eq!(parse(&frame).request, subscribe(None, Some(rewind)));
    }
    let frame = parse(r#"{"type":"history","channel":"room:42","before":"x","limit":7}"#);
    let page = Page { since: None, before: Some("x".into()), limit: 7 };
    assert_eq!(frame.request, Request::History { channel: channel("room:42"), page });
    let frame = parse(r#"{"id":"a\"b","type":"unsubscribe","channel":"a"}"#);
    assert_eq!(frame.id.unwrap().as_json(), r#""a\"b""#);
    assert_eq!(frame.request, Request::Unsubscribe { channel: channel("a") });
    assert_eq!(parse(r#"{"type":"ping"}"#).request, Request::Ping);
    for (given, payload) in [(r#","payload":{"a": 1}"#, r#"{"a": 1}"#), ("", "null")] {
        let frame = parse(&format!(r#"{{"type":"rpc","method":"carts.add"{given}}}"#));
        let payload = Payload::Json(payload.into());
        assert_eq!(frame.request, Request::Rpc { method: "carts.add".into(), payload });
    }
    let frame = parse(r#"{"type":"auth","id":1,"token":"a.b.c"}"#);
    assert_eq!(frame.request, Request::Auth { token: Secret("a.b.c".into()) });
    assert!(!format!("{frame:?}").contains("a.b.c"));
    let publish = r#"{"type":"publish","channel":"a","event":"e","payload":{"x": 1},"messageId":"m","echo":false}"#;
    assert_eq!(
        parse(publish).request,
        Request::Publish {
            channel: channel("a"),
            publication: Publication {
                event: Event::new("e").unwrap(),
                payload: Payload::Json(Bytes::from_static(br#"{"x": 1}"#)),
                message_id: Some(MessageId::new("m").unwrap()),
                exclude: None,
            },
            echo: false,
        }
    );
}

#[test]
fn nonsense_is_answered_with_what_is_wrong() {
    let long = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(129));
    let deep = format!(
        r#"{{"type":"publish","id":7,"channel":"a","payload":{}{}}}"#,
        "[".repeat(1_000),
        "]".repeat(1_000)
    );
    for (text, code, id, part) in [
        ("", Code::BadFrame, None, "not JSON"),
        ("hello", Code::BadFrame, None, "not JSON"),
        ("[1]", Code::BadFrame, None, "no JSON object"),
        ("{}", Code::BadFrame, None, "'type' is missing"),
        (r#"{"type":"dance","id":1}"#, Code::BadFrame, Some("1"), "unknown type 'dance'"),
        (r#"{"type":"rpc","id":1}"#, Code::BadFrame, Some("1"), "'method' is missing"),
        (r#"{"type":"rpc","id":1,"method":""}"#, Code::BadFrame, Some("1"), "'method' has"),
        (r#"{"type":"rpc","method":"a\nb"}"#, Code::BadFrame, None, "'method' has"),
        (r#"{"type":"rpc","method":"m","channel":"a"}"#, Code::BadFrame, None, "'channel'"),
        (r#"{"type":1,"id":"q"}"#, Code::BadFrame, Some("\"q\""), "'type' must be a string"),
        (r#"{"type":"ping","id":{}}"#, Code::BadFrame, None, "'id' must be"),
        (r#"{"type":"ping","id":null}"#, Code::BadFrame, None, "'id' must be"),
        (long.as_str(), Code::BadFrame, None, "'id' must be"),
        (r#"{"type":"subscribe","id":2}"#, Code::BadFrame, Some("2"), "'channel' is missing"),
        (
            r#"{"type":"subscribe","id":2,"channel":"a b"}"#,
            Code::BadChannel,
            Some("2"),
            "white space",
        ),
        (r#"{"type":"subscribe","id":2,"chanel":"a"}"#, Code::BadFrame, Some("2"), "missing"),
        (r#"{"type":"subscribe","channel":"a","rewind":0}"#, Code::BadFrame, None, "'rewind'"),
        (
            r#"{"type":"subscribe","channel":"a","rewind":1000000}"#,
            Code::BadFrame,
            None,
            "'rewind'",
        ),
        (r#"{"type":"subscribe","channel":"a","rewind":-1}"#, Code::BadFrame, None, "'rewind'"),
        (r#"{"type":"subscribe","channel":"a","rewind":"-1m"}"#, Code::BadFrame, None, "'rewind'"),
        (
            r#"{"type":"subscribe","channel":"a","rewind":1,"cursor":"x"}"#,
            Code::BadFrame,
            None,
            "either",
        ),
        (r#"{"type":"history","channel":"a","limit":0}"#, Code::BadFrame, None, "'limit'"),
        (r#"{"type":"history","channel":"a","limit":1001}"#, Code::BadFrame, None, "'limit'"),
        (r#"{"type":"subscribe","channel":"a","since":"1"}"#, Code::BadFrame, None, "'since'"),
        (r#"{"type":"auth","id":3}"#, Code::BadFrame, Some("3"), "'token' is missing"),
        (r#"{"type":"auth","token":7}"#, Code::BadFrame, None, "'token' must be a string"),
        (r#"{"type":"publish","id":3,"channel":"a"}"#, Code::BadFrame, Some("3"), "'payload'"),
        (
            r#"{"type":"publish","channel":"a","payload":1,"echo":"no"}"#,
            Code::BadFrame,
            None,
            "'echo'",
        ),
        (deep.as_str(), Code::BadFrame, None, "nested deeper than 128"),
    ] {
        let error = ClientFrame::parse_json(text).unwrap_err();
        assert_eq!(error.code, code, "{text}");
        assert_eq!(error.id.as_ref().map(FrameId::as_json), id, "{text}");
        assert!(error.message.contains(part), "{} has no {part}", error.message);
    }
}
