//! A parser of Server-Sent Events, as the HTML standard has it ("Parsing an event stream" and
//! "Interpreting an event stream"). `tail` feeds it; it opens no connection.

use std::time::Duration;

/// What the stream says, as soon as it is complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The type; `message` if the stream named none.
    pub(crate) name: String,
    /// The data; the lines of several `data` fields joined with line feeds.
    pub(crate) data: String,
}

/// An event or line over the bound; the stream is not to be trusted any more.
#[derive(Debug, thiserror::Error)]
#[error("an event of more than {MOST} bytes")]
pub(crate) struct TooLarge;

/// The most that an unfinished event may hold, in bytes: the largest frame that can be configured,
/// with room for base64 and escapes.
const MOST: usize = 64 << 20;

/// The state of one event source. [`Self::restart`] begins a new connection; what the standard
/// keeps over reconnects (the last id and the reconnection time) stays.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// Nothing but a byte order mark can come before the first byte.
    started: bool,
    /// The last byte was a carriage return, so a line feed belongs to it.
    after_cr: bool,
    name: String,
    data: String,
    id: Option<String>,
    last_id: String,
    retry: Option<Duration>,
}

impl Parser {
    /// The id to send as `Last-Event-ID`; empty: none.
    pub(crate) fn last_id(&self) -> &str {
        &self.last_id
    }

    /// The reconnection time that the stream asked for.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// A new connection: what the old one left unfinished is discarded.
    pub(crate) fn restart(&mut self) {
        *self = Self {
            last_id: std::mem::take(&mut self.last_id),
            retry: self.retry,
            ..Self::default()
        };
    }

    /// Takes the next bytes of the stream, cut anywhere, and adds what they complete to `events`.
    pub(crate) fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLarge> {
        for &byte in bytes {
            let lone_feed = byte == b'\n' && std::mem::take(&mut self.after_cr);
            self.after_cr = byte == b'\r';
            match byte {
                b'\n' if lone_feed => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                byte => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > MOST {
                return Err(TooLarge);
            }
        }
        Ok(())
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let mut bytes = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.started, true);
        if first && bytes.starts_with(b"\xEF\xBB\xBF") {
            bytes.drain(..3);
        }
        if bytes.is_empty() {
            return self.dispatch();
        }
        let line = String::from_utf8_lossy(&bytes);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        self.field(field, value.strip_prefix(' ').unwrap_or(value));
        None
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry);
            }
            // A comment (no name before the colon) or a field of the future.
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Event> {
        if let Some(id) = self.id.take() {
            self.last_id = id;
        }
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        // Without a `data` field there is no event; one empty field leaves a line feed here.
        data.pop()?;
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(stream: &[u8]) -> (Vec<(String, String)>, Parser) {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        parser.feed(stream, &mut events).unwrap();
        (events.into_iter().map(|e| (e.name, e.data)).collect(), parser)
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn the_examples_of_the_standard() {
        let (events, _) = all(b"data: YHOO\ndata: +2\ndata: 10\n\n");
        assert_eq!(events, [event("message", "YHOO\n+2\n10")]);

        let (events, parser) = all(
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        );
        let expected = ["first event", "second event", " third event"];
        assert_eq!(events, expected.map(|data| event("message", data)));
        assert_eq!(parser.last_id(), "");

        // The last block is not finished, so it is no event.
        let (events, _) = all(b"data\n\ndata\ndata\n\ndata:");
        assert_eq!(events, [event("message", ""), event("message", "\n")]);

        let (events, _) = all(b"data:test\n\ndata: test\n\n");
        assert_eq!(events, [event("message", "test"), event("message", "test")]);
    }

    #[test]
    fn fields() {
        type Expected = &'static [(&'static str, &'static str)];
        let cases: &[(&[u8], Expected)] = &[
            (b"event: add\ndata: 1\n\ndata: 2\n\n", &[("add", "1"), ("message", "2")]),
            (b"event: add\n\ndata: 2\n\n", &[("message", "2")]),
            (b"Data: 1\ndata : 2\nfoo: 3\n\n", &[]),
            (b"\xEF\xBB\xBFdata: 1\n\n\xEF\xBB\xBFdata: 2\n\n", &[("message", "1")]),
            (b"data: a:b\n\n", &[("message", "a:b")]),
            (b"data: \xFF\n\n", &[("message", "\u{FFFD}")]),
            (b"\n\n\n", &[]),
        ];
        for (stream, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(n, d)| event(n, d)).collect();
            assert_eq!(all(stream).0, expected, "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn every_line_end_at_every_split() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = "data: a\n\nid: 7\nevent: x\ndata: b\ndata: c\n\n".replace('\n', end);
            for cut in 0..=stream.len() {
                let (head, tail) = stream.as_bytes().split_at(cut);
                let mut parser = Parser::default();
                let mut events = Vec::new();
                parser.feed(head, &mut events).unwrap();
                parser.feed(tail, &mut events).unwrap();
                let events: Vec<_> = events.into_iter().map(|e| (e.name, e.data)).collect();
                assert_eq!(events, [event("message", "a"), event("x", "b\nc")], "{end:?} {cut}");
                assert_eq!(parser.last_id(), "7");
            }
        }
    }

    #[test]
    fn an_id_counts_once_its_block_is_finished() {
        let (events, parser) = all(b"id: 1\n\nid: 2\ndata: x\n");
        assert_eq!((events.len(), parser.last_id()), (0, "1"));
        let (_, parser) = all(b"id: 1\n\nid: 2\x00\n\n");
        assert_eq!(parser.last_id(), "1");
        let (_, parser) = all(b"id: 1\n\nid\n\n");
        assert_eq!(parser.last_id(), "");
    }

    #[test]
    fn retry_is_digits_alone() {
        for (line, expected) in [("1500", Some(1500)), ("", None), ("1.5", None), ("-1", None)] {
            let (_, parser) = all(format!("retry: {line}\n").as_bytes());
            assert_eq!(parser.retry(), expected.map(Duration::from_millis), "{line}");
        }
    }

    #[test]
    fn a_new_connection_keeps_the_id_and_the_time() {
        let (_, mut parser) = all(b"id: 1\nretry: 5\n\ndata: half");
        parser.restart();
        let mut events = Vec::new();
        parser.feed(b"\xEF\xBB\xBFdata: whole\n\n", &mut events).unwrap();
        assert_eq!(events, [Event { name: "message".to_owned(), data: "whole".to_owned() }]);
        assert_eq!((parser.last_id(), parser.retry()), ("1", Some(Duration::from_millis(5))));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        let block = vec![b'x'; 1 << 20];
        let mut events = Vec::new();
        let refused = (0..=64).any(|_| parser.feed(&block, &mut events).is_err());
        assert!(refused);
    }
}
