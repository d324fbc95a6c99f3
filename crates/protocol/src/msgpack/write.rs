//! The bytes of MessagePack, each value in its shortest form.

/// The heads of a kind of value: for lengths that fit into the head itself, 8, 16 and 32 bits.
struct Heads {
    fixed: u8,
    fixed_most: usize,
    /// Absent for arrays and maps.
    short: Option<u8>,
    medium: u8,
    long: u8,
}

const STRING: Heads =
    Heads { fixed: 0xa0, fixed_most: 31, short: Some(0xd9), medium: 0xda, long: 0xdb };
/// `bin` has no form without a length of its own; 0 bytes at most are left to `short`.
const BYTES: [u8; 3] = [0xc4, 0xc5, 0xc6];
const ARRAY: Heads = Heads { fixed: 0x90, fixed_most: 15, short: None, medium: 0xdc, long: 0xdd };
const MAP: Heads = Heads { fixed: 0x80, fixed_most: 15, short: None, medium: 0xde, long: 0xdf };

/// A head of up to 5 bytes, and how many of them count.
type Head = ([u8; 5], usize);

impl Heads {
    fn head(&self, length: usize) -> Head {
        if length <= self.fixed_most {
            // At most 31.
            return ([self.fixed | length as u8, 0, 0, 0, 0], 1);
        }
        with_length(self.short, self.medium, self.long, length)
    }
}

fn with_length(short: Option<u8>, medium: u8, long: u8, length: usize) -> Head {
    let mut head = [0; 5];
    if let (Some(short), Ok(length)) = (short, u8::try_from(length)) {
        head[..2].copy_from_slice(&[short, length]);
        (head, 2)
    } else if let Ok(length) = u16::try_from(length) {
        head[0] = medium;
        head[1..3].copy_from_slice(&length.to_be_bytes());
        (head, 3)
    } else {
        // Nothing here comes near 4 GiB: a message is 16 MiB at most.
        head[0] = long;
        head[1..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        (head, 5)
    }
}

fn put((head, size): Head, out: &mut Vec<u8>) {
    out.extend_from_slice(&head[..size]);
}

pub(super) fn nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub(super) fn boolean(value: bool, out: &mut Vec<u8>) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    put(STRING.head(text.len()), out);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let [short, medium, long] = BYTES;
    put(with_length(Some(short), medium, long, bytes.len()), out);
    out.extend_from_slice(bytes);
}

pub(super) fn array(length: usize, out: &mut Vec<u8>) {
    put(ARRAY.head(length), out);
}

pub(super) fn map(length: usize, out: &mut Vec<u8>) {
    put(MAP.head(length), out);
}

pub(super) fn unsigned(value: u64, out: &mut Vec<u8>) {
    if let Ok(byte) = u8::try_from(value) {
        if byte >= 0x80 {
            out.push(0xcc);
        }
        out.push(byte);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(0xcd);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0xce);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn signed(value: i64, out: &mut Vec<u8>) {
    if let Ok(value) = u64::try_from(value) {
        unsigned(value, out);
    } else if let Ok(value) = i8::try_from(value) {
        if value < -32 {
            out.push(0xd0);
        }
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        out.push(0xd1);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        out.push(0xd2);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn float(value: f64, out: &mut Vec<u8>) {
    out.push(0xcb);
    out.extend_from_slice(&value.to_be_bytes());
}

/// What has as many members as are written between [`begin`] and [`end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    Array,
    Map,
}

/// Leaves room for the head of something whose length is not known yet.
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len() - 1
}

/// Writes the head where [`begin`] left room. What stands behind it is moved for more than 15
/// members.
pub(super) fn end(many: Many, begin: usize, length: usize, out: &mut Vec<u8>) {
    let heads = if many == Many::Array { &ARRAY } else { &MAP };
    let (head, size) = heads.head(length);
    out.splice(begin..=begin, head[..size].iter().copied());
}

/// Adds to the length of a map that begins there and stays below 16 members.
pub(super) fn more_in_map(begin: usize, members: u8, out: &mut [u8]) {
    if let Some(head) = out.get_mut(begin) {
        debug_assert!(*head & 0xf0 == 0x80 && (*head & 0x0f) + members < 16);
        *head += members;
    }
}
