//! The cursor over what was just read from a socket.
//!
//! Owns nothing but a position in the caller's scratch buffer. Made by the caller for each read,
//! drained by [`Decoder::decode`](crate::Decoder::decode); it never outlives the read.

use std::ops::Range;

/// Bytes from the socket that are not decoded yet.
///
/// The decoder unmasks payloads in place, so the bytes it has passed are no longer what was
/// received.
#[derive(Debug)]
pub struct Input<'i> {
    bytes: &'i mut [u8],
    at: usize,
}

impl<'i> Input<'i> {
    /// A cursor at the start of `bytes`, the filled part of the scratch buffer.
    pub fn new(bytes: &'i mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes are not decoded yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether everything is decoded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// What is not decoded yet, without moving.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Moves past up to `n` bytes and returns where they are.
    pub(crate) fn take(&mut self, n: usize) -> Range<usize> {
        let start = self.at;
        self.at += n.min(self.remaining());
        start..self.at
    }

    /// Moves to the end.
    pub(crate) fn discard(&mut self) {
        self.at = self.bytes.len();
    }

    /// Bytes that [`take`](Self::take) has passed.
    pub(crate) fn taken(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// The same, to unmask them.
    pub(crate) fn taken_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[range]
    }
}
