//! Any bytes as what Redis says on a connection, cut into reads in any way: never a panic, the same
//! replies as in one read, each within the bound, and no more kept than the bound asks for.

#![no_main]

// The reader is the crate's own, and stays private to it.
#[allow(dead_code)]
#[path = "../../crates/broker-redis/src/resp.rs"]
mod resp;

use libfuzzer_sys::fuzz_target;
use resp::{Item, Reader, Reply};

/// Small enough for the fuzzer to reach it.
const MAX_BULK: usize = 64;

fuzz_target!(|data: &[u8]| {
    // The first byte counts the reads' lengths that follow it; the rest is the stream.
    let Some((&count, rest)) = data.split_first() else { return };
    let (lengths, stream) = rest.split_at(usize::from(count).min(rest.len()));
    let whole = read(stream, &[]);
    assert_eq!(read(stream, lengths), whole);
    assert_eq!(read(stream, &vec![1; stream.len()]), whole);
});

/// What was read, and the error at the end.
fn read(stream: &[u8], lengths: &[u8]) -> (Vec<String>, Option<resp::ProtocolError>) {
    let mut reader = Reader::new(MAX_BULK);
    let mut seen = Vec::new();
    let mut rest = stream;
    let cuts = lengths.iter().map(|length| usize::from(*length)).chain([usize::MAX]);
    for length in cuts {
        let (piece, later) = rest.split_at(length.min(rest.len()));
        rest = later;
        reader.space(piece.len()).extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(Some(reply)) => {
                    check(&reply);
                    seen.push(format!("{reply:?}"));
                }
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}

fn check(reply: &Reply<'_>) {
    match reply {
        Reply::TooLarge(name, length) => assert!(name.len() <= MAX_BULK && *length > MAX_BULK),
        Reply::Push(items) => {
            for item in items {
                assert!(!matches!(item, Item::Text(text) if text.len() > MAX_BULK));
            }
        }
        // A line, or a text.
        Reply::Text(text) | Reply::Error(text) => assert!(text.len() <= 8 << 10),
        Reply::Int(_) | Reply::Nil => {}
    }
}
