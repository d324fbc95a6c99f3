//! Any bytes that a client may send, cut into reads in any way: never a panic, never more memory
//! than promised, and always the same events and the same error as in one read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire_websocket::{DecodeError, Decoder, Event, Input};

/// Small enough for the fuzzer to reach it.
const LIMIT: usize = 512;

/// What the decoder made of a stream: its events in their debug form, and the error at the end.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    events: Vec<String>,
    error: Option<DecodeError>,
}

fuzz_target!(|data: &[u8]| {
    // The first byte counts the reads' lengths that follow it; the rest is the stream.
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let (lengths, stream) = rest.split_at(usize::from(count).min(rest.len()));
    for deflate in [false, true] {
        let whole = decode(stream, &[], deflate);
        assert_eq!(decode(stream, lengths, deflate), whole);
        assert_eq!(decode(stream, &vec![1; stream.len()], deflate), whole);
    }
});

/// `deflate` says whether the client may compress.
fn decode(stream: &[u8], lengths: &[u8], deflate: bool) -> Outcome {
    let mut decoder = if deflate { Decoder::with_deflate(LIMIT) } else { Decoder::new(LIMIT) };
    let mut outcome = Outcome::default();
    let mut rest = stream;
    for &length in lengths {
        let (read, later) = rest.split_at(usize::from(length).min(rest.len()));
        rest = later;
        drain(&mut decoder, read, &mut outcome);
    }
    drain(&mut decoder, rest, &mut outcome);
    outcome
}

fn drain(decoder: &mut Decoder, read: &[u8], outcome: &mut Outcome) {
    let mut read = read.to_vec();
    let mut input = Input::new(&mut read);
    loop {
        match decoder.decode(&mut input) {
            Ok(Some(event)) => {
                check(&event);
                outcome.events.push(format!("{event:?}"));
            }
            Ok(None) => break,
            Err(error) => {
                assert!(outcome.error.is_none(), "one error at most");
                assert!([1002, 1007, 1009].contains(&error.close_code()));
                outcome.error = Some(error);
            }
        }
        // The message, an eighth of it more for a compressed one, and a fixed part.
        assert!(decoder.heap_bytes() <= LIMIT + LIMIT / 8 + 64 + 256);
    }
    assert!(input.is_empty());
    assert_eq!(decoder.heap_bytes() > 0, decoder.has_partial());
}

/// What an event promises.
fn check(event: &Event<'_>) {
    match event {
        Event::Text(text) => assert!(text.len() <= LIMIT),
        Event::Binary(bytes) => assert!(bytes.len() <= LIMIT),
        Event::Ping(bytes) | Event::Pong(bytes) => assert!(bytes.len() <= 125),
        Event::Close(Some((code, reason))) => {
            assert!(tidewire_websocket::close_code::is_valid(*code));
            assert!(reason.len() <= 123);
        }
        Event::Close(None) => {}
    }
}
