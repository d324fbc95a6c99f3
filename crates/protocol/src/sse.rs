//! Server-Sent Events: how messages and control events stand in an event stream (HTML standard,
//! section 9.2.6).

use crate::reply::write_payload;
use crate::{Channel, Message, Payload, Reply, StreamToken};

/// How a stream wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// `event:` is the message's event, `data:` its payload as JSON.
    Payload,
    /// As [`Style::Payload`], but a string payload stands bare, line by line (`?text=1`).
    Text,
    /// `data:` is the whole `message` frame (`?envelope=1`).
    Envelope,
}

/// A heartbeat: a comment, which no client shows to anyone.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Writes the line that sets a client's last id.
pub fn write_id(token: &StreamToken, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("id: {token}\n").as_bytes());
}

/// Writes a message as one event.
pub fn write_message(message: &Message, channel: &Channel, style: Style, out: &mut Vec<u8>) {
    if !message.event.is_default() {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(message.event.as_str().as_bytes());
        out.push(b'\n');
    }
    match (style, &message.payload) {
        (Style::Envelope, _) => {
            let mut json = Vec::with_capacity(message.payload.len() + 256);
            message.write_json(channel, &mut json);
            write_data(&json, out);
        }
        (Style::Text, Payload::Json(json)) if json.first() == Some(&b'"') => {
            // A string that JSON allows and Unicode does not (a lone surrogate) stays JSON.
            match serde_json::from_slice::<String>(json) {
                Ok(text) => write_data(text.as_bytes(), out),
                Err(_) => write_data(json, out),
            }
        }
        (Style::Payload, Payload::Binary(_)) => {
            let mut quoted = Vec::with_capacity(message.payload.len() * 4 / 3 + 8);
            write_payload(&message.payload, &mut quoted);
            write_data(&quoted, out);
        }
        (Style::Text, payload @ Payload::Binary(_)) => {
            let mut quoted = Vec::with_capacity(payload.len() * 4 / 3 + 8);
            write_payload(payload, &mut quoted);
            write_data(&quoted[1..quoted.len() - 1], out);
        }
        (_, Payload::Json(json)) => write_data(json, out),
    }
    out.push(b'\n');
}

/// Writes a control event; nothing for what SSE has no event for.
pub fn write_control(reply: &Reply<'_>, out: &mut Vec<u8>) {
    let mut data = Vec::new();
    let Some(event) = reply.write_sse_data(&mut data) else { return };
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.push(b'\n');
    write_data(&data, out);
    out.push(b'\n');
}

/// Writes how many milliseconds an `EventSource` waits before it comes back.
pub fn write_retry(millis: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("retry: {millis}\n\n").as_bytes());
}

/// Writes `data:` lines. A CR, an LF or both end a line, as the client will read it; JSON has them
/// only between its tokens, where the LF that the client puts back means the same.
fn write_data(data: &[u8], out: &mut Vec<u8>) {
    let mut rest = data;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
            out.extend_from_slice(rest);
            out.push(b'\n');
            return;
        };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + if crlf { 2 } else { 1 }..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Timestamp};
    use bytes::Bytes;

    fn message(event: &str, payload: Payload) -> Message {
        Message {
            event: Event::new(event).unwrap(),
            payload,
            message_id: None,
            timestamp: Timestamp::from_millis(0),
            from: None,
            exclude: None,
            stored: None,
        }
    }

    fn written(event: &str, payload: Payload, style: Style) -> String {
        let mut out = Vec::new();
        write_message(&message(event, payload), &Channel::new("c").unwrap(), style, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn json(text: &'static str) -> Payload {
        Payload::Json(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_payload_is_json_data() {
        assert_eq!(
            written("headline", json(r#"{"a":1}"#), Style::Payload),
            "event: headline\ndata: {\"a\":1}\n\n"
        );
        assert_eq!(written("message", json("1"), Style::Payload), "data: 1\n\n");
        assert_eq!(
            written("message", json("{\r\n \"a\":\r1}\n"), Style::Payload),
            "data: {\ndata:  \"a\":\ndata: 1}\ndata: \n\n"
        );
        let bytes = Payload::Binary(Bytes::from_static(b"\xff\x00"));
        assert_eq!(written("message", bytes.clone(), Style::Payload), "data: \"/wA=\"\n\n");
        assert_eq!(written("message", bytes, Style::Text), "data: /wA=\n\n");
    }

    #[test]
    fn text_stands_bare_line_by_line() {
        assert_eq!(
            written("log", json(r#""a\r\nb\nc\rd""#), Style::Text),
            "event: log\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
        );
        assert_eq!(written("log", json(r#""""#), Style::Text), "event: log\ndata: \n\n");
        assert_eq!(written("message", json(r#""\ud800""#), Style::Text), "data: \"\\ud800\"\n\n");
        assert_eq!(written("message", json("[1]"), Style::Text), "data: [1]\n\n");
    }

    #[test]
    fn an_envelope_is_the_whole_frame() {
        let text = written("e", json("1"), Style::Envelope);
        let data = text.strip_prefix("event: e\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        let frame: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(frame["channel"], "c");
        assert_eq!(frame["payload"], 1);
    }

    #[test]
    fn control_events_have_the_frames_members() {
        let mut out = Vec::new();
        write_control(
            &Reply::Gap { channel: &Channel::new("c").unwrap(), after: None, cursor: None },
            &mut out,
        );
        write_control(&Reply::Pong { id: None }, &mut out);
        write_control(&Reply::Shutdown { reconnect: 7 }, &mut out);
        write_retry(1500, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "event: tidewire:gap\ndata: {\"channel\":\"c\"}\n\n\
             event: tidewire:shutdown\ndata: {\"reconnect\":7}\n\n\
             retry: 1500\n\n"
        );
    }
}
