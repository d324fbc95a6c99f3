//! The three requests that the bare loop knows. Anything else ends the connection.

use std::io;

use tidewire_websocket::accept_key;

/// A request, with all that its answer needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `POST`: the channel and the payload, taken out of a body `{"payload":…}`.
    Publish(String, Vec<u8>),
    /// `GET /ws`: the channel, the answer that opens the WebSocket, and a first frame.
    WebSocket(String, Vec<u8>),
    /// `GET /sse`: the channel, the answer that opens the stream, and a first event.
    Sse(String, Vec<u8>),
}

/// The first request in these bytes and its length; `None` when it is not whole.
pub(super) fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    let body = &bytes[end + 4..];
    let field = |wanted: &str| {
        let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let path = head.split(' ').nth(1).unwrap_or_default();
    // Names here have nothing that is escaped; without one all share the channel without a name.
    let channel = path.split_once("?channel=").map_or("", |(_, name)| name).to_owned();
    let request = if head.starts_with("POST ") {
        let length: usize =
            field("content-length").unwrap_or("0").parse().map_err(io::Error::other)?;
        let Some(body) = body.get(..length) else { return Ok(None) };
        let payload = body.strip_prefix(br#"{"payload":"#).and_then(|it| it.strip_suffix(b"}"));
        let publish = Request::Publish(channel, payload.unwrap_or(body).to_vec());
        return Ok(Some((publish, end + 4 + length)));
    } else if head.starts_with("GET /ws") {
        let key = field("sec-websocket-key").unwrap_or_default();
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {}\r\n\r\n",
            accept_key(key)
        )
        .into_bytes();
        answer.extend_from_slice(b"\x81\x12{\"type\":\"welcome\"}");
        Request::WebSocket(channel, answer)
    } else if head.starts_with("GET /sse") {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                       cache-control: no-store\r\n\r\nevent: welcome\ndata: {}\n\n";
        Request::Sse(channel, answer.to_vec())
    } else {
        return Err(io::Error::other("a request that is not known here"));
    };
    Ok(Some((request, end + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_read_when_it_is_whole() {
        let bytes = b"POST /publish?channel=a HTTP/1.1\r\nContent-Length: 16\r\n\r\n{\"payload\":\"hi\"}POST";
        for end in 0..bytes.len() - 4 {
            assert_eq!(parse(&bytes[..end]).unwrap(), None, "{end}");
        }
        let found = parse(bytes).unwrap();
        assert_eq!(
            found,
            Some((Request::Publish("a".to_owned(), b"\"hi\"".to_vec()), bytes.len() - 4))
        );
    }

    #[test]
    fn what_is_not_known_ends_the_connection() {
        assert!(parse(b"PUT / HTTP/1.1\r\n\r\n").is_err());
    }
}
