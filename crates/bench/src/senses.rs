//! What all subscribers of a crowd read with: the search for markers, the reader of compressed
//! messages, and the count of refusals.

use std::collections::VecDeque;
use std::io;

use flate2::{Decompress, FlushDecompress, Status};
use memchr::memmem::Finder;

use crate::marker::Marker;
use crate::scan::{Scan, Search};

/// How many compressed messages are remembered: more than are under way at a time.
const REMEMBERED: usize = 128;

/// What a flush ends with, and what is left out of the message (RFC 7692, section 7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// Shared by all subscribers of a crowd.
pub(crate) struct Senses {
    pub(crate) search: Search,
    /// Where refusals are counted: how they begin.
    refusal: Option<Finder<'static>>,
    pub(crate) refused: u64,
    inflate: Decompress,
    /// The last compressed messages and what they say, newest first: who sends the same bytes to
    /// all has them inflated once, so that the generator costs little beside the server.
    known: VecDeque<(Vec<u8>, Vec<Marker>)>,
    text: Vec<u8>,
}

impl Senses {
    /// `refusal`: the text by which the server says that it does not do what it was asked.
    pub(crate) fn new(refusal: Option<&'static str>) -> Self {
        Self {
            search: Search::new(),
            refusal: refusal.map(|text| Finder::new(text.as_bytes())),
            refused: 0,
            inflate: Decompress::new(false),
            known: VecDeque::with_capacity(REMEMBERED),
            text: Vec::new(),
        }
    }

    /// Counts a refusal in a piece of a message.
    pub(crate) fn look(&mut self, piece: &[u8]) {
        if self.refusal.as_ref().is_some_and(|finder| finder.find(piece).is_some()) {
            self.refused += 1;
        }
    }

    /// Finds the markers of a whole compressed message.
    pub(crate) fn unpack(&mut self, message: &[u8], on: &mut impl FnMut(Marker)) -> io::Result<()> {
        if let Some((_, markers)) = self.known.iter().find(|(known, _)| known == message) {
            markers.iter().for_each(|marker| on(*marker));
            return Ok(());
        }
        self.inflate(message)?;
        let mut markers = Vec::new();
        Scan::default().feed(&self.search, &self.text, &mut |marker| markers.push(marker));
        markers.iter().for_each(|marker| on(*marker));
        self.known.truncate(REMEMBERED - 1);
        self.known.push_front((message.to_vec(), markers));
        Ok(())
    }

    /// Inflates a message into `text`.
    fn inflate(&mut self, message: &[u8]) -> io::Result<()> {
        self.inflate.reset(false);
        self.text.clear();
        for part in [message, &FLUSHED] {
            let mut rest = part;
            loop {
                self.text.reserve(4 * rest.len() + 64);
                let before = self.inflate.total_in();
                let status = self
                    .inflate
                    .decompress_vec(rest, &mut self.text, FlushDecompress::Sync)
                    .map_err(io::Error::other)?;
                let taken = usize::try_from(self.inflate.total_in() - before).unwrap_or(rest.len());
                rest = &rest[taken..];
                let full = self.text.len() == self.text.capacity();
                if status == Status::StreamEnd || (rest.is_empty() && !full) {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::LENGTH;

    #[test]
    fn compressed_messages_are_read_once() {
        let (mut senses, mut found) = (Senses::new(None), Vec::new());
        let markers = [1, 2].map(|number| Marker { sent: 7, number });
        for marker in markers {
            let mut bytes = [0; LENGTH];
            marker.write(&mut bytes);
            let mut text = bytes.to_vec();
            text.resize(5_000, b'x');
            let frame = tidewire_websocket::deflate(tidewire_websocket::MessageKind::Text, &text);
            // Shorter than 126 bytes.
            let frame = frame.unwrap();
            for _ in 0..3 {
                senses.unpack(&frame[2..], &mut |marker| found.push(marker)).unwrap();
            }
        }
        assert_eq!(found, [markers[0], markers[0], markers[0], markers[1], markers[1], markers[1]]);
        assert_eq!(senses.known.len(), 2);
        assert!(senses.unpack(b"\xff\xff\xff", &mut |_| ()).is_err());
    }
}
