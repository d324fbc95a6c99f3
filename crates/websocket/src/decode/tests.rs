use super::*;

const LIMIT: usize = 1000;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const FIN_CONTINUATION: u8 = 0x80;
const FIN_TEXT: u8 = 0x81;
const FIN_BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const CONTINUATION: u8 = 0x00;
const TEXT: u8 = 0x01;
const BINARY: u8 = 0x02;

/// A masked frame with the first byte `first` and a payload of up to 65,535 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len());
    let at = frame.len();
    frame.extend_from_slice(payload);
    unmask(&mut frame[at..], KEY);
    frame
}

/// The header alone, whatever follows it.
fn header(first: u8, payload: usize) -> Vec<u8> {
    let mut header = vec![first];
    match payload {
        0..126 => header.push(0x80 | payload as u8),
        126..65_536 => {
            header.push(0x80 | 126);
            header.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
    header.extend_from_slice(&KEY);
    header
}

/// Feeds `bytes` in one read; the events in their debug form, or the error that ends them.
fn read(decoder: &mut Decoder, bytes: &[u8]) -> (Vec<String>, Option<DecodeError>) {
    let mut bytes = bytes.to_vec();
    let mut input = Input::new(&mut bytes);
    let mut events = Vec::new();
    loop {
        match decoder.decode(&mut input) {
            Ok(Some(event)) => events.push(format!("{event:?}")),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}

/// The same from a fresh decoder, once in one read and once byte by byte: never a difference.
fn conversation(bytes: &[u8]) -> (Vec<String>, Option<DecodeError>) {
    let whole = read(&mut Decoder::new(LIMIT), bytes);
    let mut decoder = Decoder::new(LIMIT);
    let mut events = Vec::new();
    let mut error = None;
    for byte in bytes {
        let (more, failed) = read(&mut decoder, &[*byte]);
        events.extend(more);
        error = error.or(failed);
    }
    assert_eq!(whole, (events, error), "in one read and byte by byte");
    whole
}

fn events(bytes: &[u8]) -> Vec<String> {
    let (events, error) = conversation(bytes);
    assert_eq!(error, None);
    events
}

fn error(bytes: &[u8]) -> Option<DecodeError> {
    conversation(bytes).1
}

#[test]
fn an_idle_connection_owns_almost_nothing() {
    assert!(size_of::<Decoder>() <= 96);
    assert_eq!(size_of::<Decoder>(), 24, "say so in the figures when this changes");
    let mut decoder = Decoder::new(LIMIT);
    assert_eq!(decoder.heap_bytes(), 0);
    read(&mut decoder, &frame(FIN_TEXT, b"whole"));
    assert_eq!(decoder.heap_bytes(), 0);
    assert!(!decoder.has_partial());
}

#[test]
fn each_kind_of_frame() {
    let bytes = [
        frame(FIN_TEXT, "grüß".as_bytes()),
        frame(FIN_TEXT, b""),
        frame(FIN_BINARY, &[0, 255]),
        frame(PING, b"p"),
        frame(PONG, &[]),
        frame(CLOSE, b"\x03\xe8bye"),
    ];
    let expected = [
        r#"Text("grüß")"#,
        r#"Text("")"#,
        "Binary([0, 255])",
        "Ping([112])",
        "Pong([])",
        r#"Close(Some((1000, "bye")))"#,
    ];
    assert_eq!(events(&bytes.concat()), expected);
}

#[test]
fn a_whole_message_is_a_slice_of_the_input() {
    let mut bytes = frame(FIN_BINARY, &[1, 2, 3]);
    let range = bytes.as_ptr_range();
    let mut input = Input::new(&mut bytes);
    let mut decoder = Decoder::new(LIMIT);
    let Ok(Some(Event::Binary(payload))) = decoder.decode(&mut input) else {
        panic!("a binary message");
    };
    assert!(range.contains(&payload.as_ptr()));
}

#[test]
fn control_frames_between_fragments() {
    let bytes = [
        frame(TEXT, b"a"),
        frame(PING, b"p"),
        frame(CONTINUATION, b""),
        frame(PONG, b""),
        frame(FIN_CONTINUATION, b"b"),
    ];
    assert_eq!(events(&bytes.concat()), ["Ping([112])", "Pong([])", r#"Text("ab")"#]);
}

#[test]
fn a_continuation_of_nothing() {
    for first in [CONTINUATION, FIN_CONTINUATION] {
        assert_eq!(error(&frame(first, b"x")), Some(DecodeError::UnexpectedContinuation));
    }
    let bytes = [frame(TEXT, b"a"), frame(FIN_CONTINUATION, b"b"), frame(FIN_CONTINUATION, b"c")];
    let expected = (vec![r#"Text("ab")"#.to_owned()], Some(DecodeError::UnexpectedContinuation));
    assert_eq!(conversation(&bytes.concat()), expected);
}

#[test]
fn a_message_inside_a_message() {
    for first in [TEXT, BINARY, FIN_TEXT, FIN_BINARY] {
        let bytes = [frame(TEXT, b"a"), frame(first, b"b")].concat();
        assert_eq!(error(&bytes), Some(DecodeError::InterruptedMessage));
    }
}

#[test]
fn the_limit_holds_for_one_frame_and_for_many() {
    let too_big = Some(DecodeError::TooBig { limit: LIMIT });
    assert_eq!(events(&frame(FIN_BINARY, &[0; LIMIT])).len(), 1);
    assert_eq!(error(&frame(FIN_BINARY, &[0; LIMIT + 1])), too_big);
    let within = [frame(BINARY, &[0; 600]), frame(FIN_CONTINUATION, &[0; 400])];
    assert_eq!(events(&within.concat()).len(), 1);
    let beyond = [frame(BINARY, &[0; 600]), frame(CONTINUATION, &[0; 401])];
    assert_eq!(error(&beyond.concat()), too_big);
}

#[test]
fn the_limit_is_checked_before_the_payload_arrives() {
    for payload in [LIMIT + 1, 65_536, i64::MAX as usize] {
        let mut decoder = Decoder::new(LIMIT);
        let (_, error) = read(&mut decoder, &header(FIN_BINARY, payload));
        assert_eq!(error, Some(DecodeError::TooBig { limit: LIMIT }));
        assert_eq!(decoder.heap_bytes(), 0);
    }
    assert_eq!(DecodeError::TooBig { limit: LIMIT }.close_code(), 1009);
}

#[test]
fn control_frames_have_a_limit_of_their_own() {
    let mut decoder = Decoder::new(10);
    let (events, error) = read(&mut decoder, &frame(PING, &[0; 125]));
    assert_eq!((events.len(), error), (1, None));
}

#[test]
fn memory_follows_what_has_arrived() {
    let fixed = size_of::<Partial>();
    assert!(fixed < 256, "heap_bytes() promises it");
    let mut decoder = Decoder::new(1 << 20);
    read(&mut decoder, &header(FIN_BINARY, 1 << 20));
    assert_eq!(decoder.heap_bytes(), fixed, "an announcement alone costs nothing");
    assert!(decoder.has_partial());
    read(&mut decoder, &[0; 100]);
    assert_eq!(decoder.heap_bytes(), fixed + 100);
    assert_eq!(decoder.unfinished_bytes(), 100);
    for _ in 0..10 {
        read(&mut decoder, &[0; 100_000]);
        assert!(decoder.heap_bytes() <= fixed + (1 << 20));
    }
    let (events, _) = read(&mut decoder, &vec![0; (1 << 20) - 1_000_100]);
    assert_eq!(events.len(), 1);
    assert_eq!(decoder.heap_bytes(), 0, "gone once it is handed out");
    assert_eq!(decoder.unfinished_bytes(), 0);
    assert!(!decoder.has_partial());
}

#[test]
fn empty_fragments_cost_nothing() {
    let mut decoder = Decoder::new(LIMIT);
    read(&mut decoder, &frame(TEXT, b""));
    let before = decoder.heap_bytes();
    let burst = frame(CONTINUATION, b"").repeat(1000);
    for _ in 0..100 {
        assert_eq!(read(&mut decoder, &burst), (vec![], None));
    }
    assert_eq!(decoder.heap_bytes(), before);
    assert!(decoder.has_partial(), "the caller's time-out ends it");
}

#[test]
fn many_small_fragments_stay_within_the_limit() {
    let mut decoder = Decoder::new(LIMIT);
    read(&mut decoder, &frame(BINARY, b""));
    let mut sizes = std::collections::BTreeSet::new();
    for _ in 0..LIMIT {
        assert_eq!(read(&mut decoder, &frame(CONTINUATION, b"x")), (vec![], None));
        assert!(decoder.heap_bytes() <= size_of::<Partial>() + LIMIT);
        sizes.insert(decoder.heap_bytes());
    }
    assert!(sizes.len() <= 11, "the buffer doubles, or copying would be quadratic: {sizes:?}");
    let (_, error) = read(&mut decoder, &frame(CONTINUATION, b"x"));
    assert_eq!(error, Some(DecodeError::TooBig { limit: LIMIT }));
}

#[test]
fn text_must_be_utf8() {
    let invalid = Some(DecodeError::InvalidText);
    assert_eq!(error(&frame(FIN_TEXT, b"\xff")), invalid);
    assert_eq!(error(&frame(FIN_TEXT, b"ends within \xe2\x82")), invalid);
    // A surrogate, an overlong slash, a code point beyond the last.
    assert_eq!(error(&frame(FIN_TEXT, b"\xed\xa0\x80")), invalid);
    assert_eq!(error(&frame(FIN_TEXT, b"\xc0\xaf")), invalid);
    assert_eq!(error(&frame(FIN_TEXT, b"\xf4\x90\x80\x80")), invalid);
    let halves = [frame(TEXT, b"\xe2\x82"), frame(FIN_CONTINUATION, b"\xac")];
    assert_eq!(events(&halves.concat()), [r#"Text("€")"#]);
    let halves = [frame(TEXT, b"\xe2\x82"), frame(FIN_CONTINUATION, b"x")];
    assert_eq!(error(&halves.concat()), invalid);
    assert_eq!(DecodeError::InvalidText.close_code(), 1007);
}

#[test]
fn bad_text_fails_before_its_frame_ends() {
    let bytes = frame(FIN_TEXT, b"good \xf4\x90 and much more to come");
    // The second byte of the sequence makes it a code point beyond the last.
    let bad = bytes.len() - b" and much more to come".len();
    let mut decoder = Decoder::new(LIMIT);
    assert_eq!(read(&mut decoder, &bytes[..bad - 1]), (vec![], None));
    let (_, error) = read(&mut decoder, &bytes[bad - 1..bad]);
    assert_eq!(error, Some(DecodeError::InvalidText));
}

#[test]
fn bad_text_fails_in_the_fragment_that_holds_it() {
    assert_eq!(error(&frame(TEXT, b"\xff")), Some(DecodeError::InvalidText));
}

#[test]
fn close_frames() {
    assert_eq!(events(&frame(CLOSE, b"")), ["Close(None)"]);
    assert_eq!(events(&frame(CLOSE, &[0x0f, 0xa0])), [r#"Close(Some((4000, "")))"#]);
    assert_eq!(error(&frame(CLOSE, b"\x03")), Some(DecodeError::TruncatedCloseCode));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        let error = error(&frame(CLOSE, &u16::to_be_bytes(code)));
        assert_eq!(error, Some(DecodeError::InvalidCloseCode(code)));
        assert_eq!(error.map(DecodeError::close_code), Some(1002));
    }
    let error = error(&frame(CLOSE, b"\x03\xe8\xff"));
    assert_eq!(error, Some(DecodeError::InvalidCloseReason));
    assert_eq!(error.map(DecodeError::close_code), Some(1007));
}

#[test]
fn nothing_follows_a_close_frame_or_an_error() {
    let mut decoder = Decoder::new(LIMIT);
    let bytes = [frame(TEXT, b"begun"), frame(CLOSE, b""), frame(FIN_CONTINUATION, b"x")];
    assert_eq!(read(&mut decoder, &bytes.concat()), (vec!["Close(None)".to_owned()], None));
    assert!(decoder.is_closed() && !decoder.has_partial());
    assert_eq!(decoder.heap_bytes(), 0);
    assert_eq!(read(&mut decoder, &frame(FIN_TEXT, b"late")), (vec![], None));

    let mut decoder = Decoder::new(LIMIT);
    let (_, error) = read(&mut decoder, &[0xF0]);
    assert_eq!(error, Some(DecodeError::ReservedBit));
    assert!(decoder.is_closed());
    assert_eq!(read(&mut decoder, &frame(FIN_TEXT, b"late")), (vec![], None));
    assert_eq!(decoder.heap_bytes(), 0);
}

#[test]
fn bad_headers_are_refused_at_once() {
    for (bytes, expected) in [
        (&[0xC1][..], DecodeError::ReservedBit),
        (&[0x83], DecodeError::ReservedOpcode(3)),
        (&[0x09], DecodeError::FragmentedControl),
        (&[0x81, 0x05], DecodeError::Unmasked),
        (&[0x89, 0xFE], DecodeError::OversizeControl),
        (&[0x81, 0xFE, 0, 125], DecodeError::LengthNotMinimal),
        (&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], DecodeError::LengthOverflow),
    ] {
        assert_eq!(error(bytes), Some(expected), "{bytes:x?}");
        assert_eq!(expected.close_code(), 1002);
    }
}

#[test]
fn has_partial_at_each_place() {
    let mut decoder = Decoder::new(LIMIT);
    let bytes = [frame(TEXT, b"a"), frame(PING, b"p"), frame(FIN_CONTINUATION, b"b")].concat();
    for (i, byte) in bytes.iter().enumerate() {
        assert_eq!(decoder.has_partial(), i > 0, "before byte {i}");
        assert_eq!(decoder.heap_bytes() > 0, i > 0, "before byte {i}");
        read(&mut decoder, &[*byte]);
    }
    assert!(!decoder.has_partial());
    assert_eq!(decoder.heap_bytes(), 0);
}
