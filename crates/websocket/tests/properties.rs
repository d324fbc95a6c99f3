//! What must hold for any client, well-behaved or not, and however its bytes are cut into reads.

#![expect(clippy::unwrap_used, reason = "the compressor that plays the client cannot fail")]

use flate2::{Compress, Compression, FlushCompress};
use proptest::collection::vec;
use proptest::prelude::*;
use tidewire_websocket::{DecodeError, Decoder, Event, Input, MessageKind};

const LIMIT: usize = 4096;

/// What `Decoder::heap_bytes` promises: the message limit and a fixed part.
const MEMORY: usize = LIMIT + 256;
/// What a client that compresses may make it hold besides.
const MEMORY_OF_DEFLATE: usize = LIMIT / 8 + 64;

/// An event that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Event::Close(close) => {
                Self::Close(close.map(|(code, reason)| (code, reason.to_owned())))
            }
        }
    }
}

/// All that a decoder made of a stream.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Owned>,
    error: Option<DecodeError>,
    partial: bool,
}

/// Reads `stream` in pieces that end at `cuts`, and watches the memory after each event. `deflate`
/// says whether the client may compress.
fn decode(stream: &[u8], cuts: &[usize], deflate: bool) -> Outcome {
    let (mut decoder, memory) = if deflate {
        (Decoder::with_deflate(LIMIT), MEMORY + MEMORY_OF_DEFLATE)
    } else {
        (Decoder::new(LIMIT), MEMORY)
    };
    let mut outcome = Outcome { events: vec![], error: None, partial: false };
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts {
        let mut piece = stream[from..cut].to_vec();
        from = cut;
        let mut input = Input::new(&mut piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(event)) => outcome.events.push(event.into()),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(outcome.error, None, "one error at most");
                    outcome.error = Some(error);
                }
            }
            assert!(decoder.heap_bytes() <= memory);
        }
        assert!(input.is_empty(), "a drained input is used up");
        assert!(decoder.heap_bytes() <= memory);
        assert_eq!(decoder.heap_bytes() > 0, decoder.has_partial(), "memory only for a partial");
    }
    outcome.partial = decoder.has_partial();
    outcome
}

/// A client's frame: `first` is its first byte.
fn frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Turns a server's frame into what a client would have sent: sets the mask bit and masks.
fn masked(server_frame: &[u8], key: [u8; 4]) -> Vec<u8> {
    let size = match server_frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame(server_frame[0], &server_frame[size..], key)
}

/// One step of a conversation: a message in fragments that end at the cuts, with a control frame
/// before each of them where there is one, or (without a message) the control frames alone.
#[derive(Clone, Debug)]
struct Step {
    message: Option<Owned>,
    deflate: Option<How>,
    cuts: Vec<usize>,
    controls: Vec<Option<Owned>>,
    key: [u8; 4],
}

/// How a client compresses a message.
#[derive(Clone, Copy, Debug)]
struct How {
    level: u32,
    window_bits: u8,
    /// After this many bytes the compressor is flushed, once (RFC 7692, section 7.2.3.5).
    flush_at: usize,
    /// The last block says that it is the last (section 7.2.3.4).
    is_final: bool,
}

fn how() -> impl Strategy<Value = How> {
    (0..=9u32, 9..=15u8, 0..400usize, any::<bool>()).prop_map(
        |(level, window_bits, flush_at, is_final)| How { level, window_bits, flush_at, is_final },
    )
}

fn compress(how: How, payload: &[u8]) -> Vec<u8> {
    let mut compress =
        Compress::new_with_window_bits(Compression::new(how.level), false, how.window_bits);
    let mut out = Vec::with_capacity(payload.len() * 2 + 100);
    let (first, second) = payload.split_at(how.flush_at.min(payload.len()));
    compress.compress_vec(first, &mut out, FlushCompress::Full).unwrap();
    if how.is_final {
        compress.compress_vec(second, &mut out, FlushCompress::Finish).unwrap();
        out.push(0);
    } else {
        compress.compress_vec(second, &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap().len());
    }
    out
}

fn message() -> impl Strategy<Value = Option<Owned>> {
    prop_oneof![
        1 => Just(None),
        4 => "\\PC{0,60}".prop_map(|text| Some(Owned::Text(text))),
        2 => vec(any::<u8>(), 0..40).prop_map(|bytes| Some(Owned::Binary(bytes))),
        1 => vec(any::<u8>(), 100..400).prop_map(|bytes| Some(Owned::Binary(bytes))),
        1 => ("[ab]{1,9}", 1..400usize).prop_map(|(text, n)| Some(Owned::Text(text.repeat(n)))),
    ]
}

fn control() -> impl Strategy<Value = Option<Owned>> {
    prop_oneof![
        4 => Just(None),
        1 => vec(any::<u8>(), 0..=125).prop_map(|bytes| Some(Owned::Ping(bytes))),
        1 => vec(any::<u8>(), 0..10).prop_map(|bytes| Some(Owned::Pong(bytes))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let cuts = vec(any::<usize>(), 0..4);
    let deflate = proptest::option::of(how());
    (message(), deflate, cuts, vec(control(), 0..5), any::<[u8; 4]>()).prop_map(
        |(message, deflate, cuts, controls, key)| Step { message, deflate, cuts, controls, key },
    )
}

/// Whether the client needs compression to be agreed on.
fn compresses(steps: &[Step]) -> bool {
    steps.iter().any(|step| step.message.is_some() && step.deflate.is_some())
}

/// How the client ends: not at all, or with a close frame with or without a code.
fn ending() -> impl Strategy<Value = Option<Owned>> {
    let code = prop_oneof![Just(1000u16), Just(1001), 3000..5000u16];
    let close = proptest::option::of((code, "\\PC{0,20}"));
    proptest::option::of(close.prop_map(Owned::Close))
}

fn control_frame(event: &Owned, key: [u8; 4]) -> Vec<u8> {
    match event {
        Owned::Ping(payload) => frame(0x89, payload, key),
        Owned::Pong(payload) => frame(0x8A, payload, key),
        Owned::Close(None) => frame(0x88, &[], key),
        Owned::Close(Some((code, reason))) => {
            frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat(), key)
        }
        Owned::Text(_) | Owned::Binary(_) => unreachable!("no control frame"),
    }
}

/// The bytes that the client sends and the events that they mean.
fn conversation(steps: &[Step], ending: Option<&Owned>) -> (Vec<u8>, Vec<Owned>) {
    let (mut stream, mut events) = (vec![], vec![]);
    for step in steps {
        let mut controls = step.controls.iter();
        let mut inject = |stream: &mut Vec<u8>, events: &mut Vec<Owned>| {
            if let Some(event) = controls.next().cloned().flatten() {
                stream.extend(control_frame(&event, step.key));
                events.push(event);
            }
        };
        let (opcode, payload) = match &step.message {
            Some(Owned::Text(text)) => (0x1, text.as_bytes()),
            Some(Owned::Binary(bytes)) => (0x2, &bytes[..]),
            _ => {
                inject(&mut stream, &mut events);
                continue;
            }
        };
        let compressed = step.deflate.map(|how| compress(how, payload));
        let opcode = if compressed.is_some() { opcode | 0x40 } else { opcode };
        let payload = compressed.as_deref().unwrap_or(payload);
        let mut cuts: Vec<usize> = step.cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
        cuts.sort_unstable();
        let starts = [&[0], &cuts[..]].concat();
        let ends = [&cuts[..], &[payload.len()]].concat();
        let last = cuts.len();
        for (i, (start, end)) in starts.into_iter().zip(ends).enumerate() {
            inject(&mut stream, &mut events);
            let first = if i == 0 { opcode } else { 0 } | if i == last { 0x80 } else { 0 };
            stream.extend(frame(first, &payload[start..end], step.key));
        }
        events.extend(step.message.clone());
    }
    if let Some(close) = ending {
        stream.extend(control_frame(close, [1, 2, 3, 4]));
        events.push(close.clone());
    }
    (stream, events)
}

proptest! {
    /// Whatever is said and however it is cut, the decoder hears exactly that.
    #[test]
    fn any_conversation_at_any_split(
        steps in vec(step(), 0..8),
        ending in ending(),
        cuts in vec(any::<usize>(), 0..40),
    ) {
        let (stream, events) = conversation(&steps, ending.as_ref());
        let expected = Outcome { events, error: None, partial: false };
        let deflate = compresses(&steps);
        prop_assert_eq!(&decode(&stream, &[], deflate), &expected);
        prop_assert_eq!(&decode(&stream, &cuts, deflate), &expected);
        prop_assert_eq!(&decode(&stream, &Vec::from_iter(0..stream.len()), deflate), &expected);
    }

    /// Two reads, at every boundary there is.
    #[test]
    fn any_conversation_at_every_single_split(steps in vec(step(), 1..3)) {
        let (stream, events) = conversation(&steps, None);
        let expected = Outcome { events, error: None, partial: false };
        for cut in 0..=stream.len() {
            let cut_there = decode(&stream, &[cut], compresses(&steps));
            prop_assert_eq!(&cut_there, &expected, "cut at {}", cut);
        }
    }

    /// A damaged conversation leads to the same events and the same error at every split, never
    /// to a panic and never to more memory.
    #[test]
    fn damage_is_told_alike_at_any_split(
        steps in vec(step(), 1..5),
        damage in vec((any::<usize>(), any::<u8>()), 1..4),
        cuts in vec(any::<usize>(), 0..20),
        deflate in any::<bool>(),
    ) {
        let (mut stream, _) = conversation(&steps, None);
        for (at, byte) in damage {
            if let Some(len) = std::num::NonZero::new(stream.len()) {
                stream[at % len] = byte;
            }
        }
        let whole = decode(&stream, &[], deflate);
        prop_assert_eq!(&decode(&stream, &cuts, deflate), &whole);
        prop_assert_eq!(&decode(&stream, &Vec::from_iter(0..stream.len()), deflate), &whole);
    }

    /// Noise, half of it made to look like frames, is survived within the same bounds.
    #[test]
    fn noise_is_survived(
        noise in vec(any::<u8>(), 0..600),
        first in prop_oneof![any::<u8>(), Just(0x01), Just(0x82), Just(0x88), Just(0xC2)],
        cuts in vec(any::<usize>(), 0..20),
        deflate in any::<bool>(),
    ) {
        let stream = [&[first, 0xFE], &noise[..]].concat();
        let whole = decode(&stream, &[], deflate);
        prop_assert_eq!(decode(&stream, &cuts, deflate), whole);
    }

    /// What the server's side encodes, its own decoder reads, once a client has masked it.
    #[test]
    fn messages_make_the_round_trip(
        text in "\\PC{0,200}",
        bytes in prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), LIMIT)],
        small in vec(any::<u8>(), 0..=125),
        key in any::<[u8; 4]>(),
    ) {
        let frames = [
            tidewire_websocket::encode(MessageKind::Text, text.as_bytes()),
            tidewire_websocket::encode(MessageKind::Binary, &bytes),
            tidewire_websocket::ping(&small),
            tidewire_websocket::pong(&small),
            tidewire_websocket::close(4000, &text),
        ];
        let stream = Vec::from_iter(frames.iter().flat_map(|frame| masked(frame, key)));
        let reason = text[..text.floor_char_boundary(123)].to_owned();
        let expected = vec![
            Owned::Text(text),
            Owned::Binary(bytes),
            Owned::Ping(small.clone()),
            Owned::Pong(small),
            Owned::Close(Some((4000, reason))),
        ];
        prop_assert_eq!(decode(&stream, &[], false).events, expected);
    }

    /// What the server's side compresses, too, and it is never longer than uncompressed.
    #[test]
    fn compressed_messages_make_the_round_trip(
        (text, repeated) in ("\\PC{0,20}", 0..200usize),
        key in any::<[u8; 4]>(),
        cuts in vec(any::<usize>(), 0..4),
    ) {
        let text = text.repeat(repeated);
        let plain = tidewire_websocket::encode(MessageKind::Text, text.as_bytes());
        let compressed = tidewire_websocket::deflate(MessageKind::Text, text.as_bytes());
        prop_assert!(compressed.as_ref().is_none_or(|frame| frame.len() < plain.len()));
        let stream = masked(&compressed.unwrap_or(plain), key);
        let read = decode(&stream, &cuts, true);
        let expected = if text.len() > LIMIT {
            prop_assert_eq!(read.error, Some(DecodeError::TooBig { limit: LIMIT }));
            vec![]
        } else {
            vec![Owned::Text(text)]
        };
        prop_assert_eq!(read.events, expected);
    }
}
