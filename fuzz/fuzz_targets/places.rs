//! Any text as a place that a client names: a cursor, the id of an event stream, how far back to
//! begin, a channel, a session. Never a panic; each text that is read says the same when it is
//! written again, and is bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire_protocol::{
    Channel, Cursor, CursorError, EntryId, Incarnation, MAX_CHANNEL_BYTES, MAX_CURSOR_BYTES,
    MAX_REWIND, Page, Rewind, SessionId, StreamToken,
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The first line is the channel, the rest is read in every way.
    let (name, rest) = text.split_once('\n').unwrap_or(("a", text));
    if let Ok(channel) = Channel::new(name) {
        assert!((1..=MAX_CHANNEL_BYTES).contains(&channel.as_str().len()));
        assert!(!name.contains(|c: char| c.is_whitespace() || "{}*?,".contains(c)));
        cursor(rest, &channel);
    }
    if let Some(token) = StreamToken::parse(rest) {
        // Each channel once, the last place that was named: after that it stays as it is.
        let again = token.to_string();
        assert!(again.len() <= 2 * rest.len() + 8);
        assert_eq!(StreamToken::parse(&again), Some(token));
    }
    if let Some(id) = EntryId::parse(rest) {
        assert_eq!(id.to_string(), rest);
    }
    if let Some(incarnation) = Incarnation::parse(rest) {
        assert!(incarnation.to_string().eq_ignore_ascii_case(rest));
    }
    if let Some(session) = SessionId::parse(rest) {
        assert_eq!(SessionId::parse(&session.to_string()), Some(session));
    }
    if let Ok(Rewind::Last(count)) = Rewind::parse(rest) {
        assert!((1..=MAX_REWIND).contains(&count));
    }
    if let Ok(limit) = Page::limit(Some(rest)) {
        assert!((1..=1_000).contains(&limit));
    }
});

fn cursor(text: &str, channel: &Channel) {
    match Cursor::parse(text, channel) {
        Ok(cursor) => {
            assert!(text.len() <= MAX_CURSOR_BYTES);
            assert_eq!(cursor.channel, channel.tag());
            assert_eq!(cursor.to_string(), text);
        }
        Err(CursorError::OtherChannel) => assert!(text.len() <= MAX_CURSOR_BYTES),
        Err(CursorError::Malformed) => {}
    }
}
