//! Finds markers in a stream of bytes that is cut anywhere.
//!
//! Subscribers own one each and feed it what they read. It allocates nothing and keeps fewer bytes
//! than one marker; it does not know what surrounds the markers.

use memchr::memmem::Finder;

use crate::marker::{LENGTH, Marker, PREFIX};

/// The search for the markers' beginning, made once and shared.
pub(crate) struct Search(Finder<'static>);

impl Search {
    pub(crate) fn new() -> Self {
        Self(Finder::new(PREFIX))
    }
}

/// What one stream has still to see the end of.
#[derive(Default)]
pub(crate) struct Scan {
    /// The beginning of a marker that the last piece ended in.
    kept: [u8; LENGTH - 1],
    length: u8,
}

impl Scan {
    /// Looks through the next piece.
    pub(crate) fn feed(&mut self, search: &Search, piece: &[u8], on: &mut impl FnMut(Marker)) {
        let mut rest = match self.complete(piece, on) {
            Some(used) => &piece[used..],
            None => return,
        };
        while let Some(at) = search.0.find(rest) {
            rest = &rest[at..];
            let Some((marker, after)) = rest.split_first_chunk::<LENGTH>() else { break };
            if let Some(marker) = Marker::read(marker) {
                on(marker);
                rest = after;
            } else {
                rest = &rest[PREFIX.len()..];
            }
        }
        self.keep(rest);
    }

    /// Completes what was kept with the beginning of the piece, and says how much of it that took.
    /// `None` when the piece is used up and the marker still not whole.
    fn complete(&mut self, piece: &[u8], on: &mut impl FnMut(Marker)) -> Option<usize> {
        while self.length > 0 {
            let have = usize::from(self.length);
            let taken = piece.len().min(LENGTH - have);
            let mut whole = [0; LENGTH];
            whole[..have].copy_from_slice(&self.kept[..have]);
            whole[have..have + taken].copy_from_slice(&piece[..taken]);
            let begins = PREFIX.len().min(have + taken);
            if have + taken < LENGTH && whole[..begins] == PREFIX[..begins] {
                self.kept[have..have + taken].copy_from_slice(&piece[..taken]);
                // Less than LENGTH.
                self.length = (have + taken) as u8;
                return None;
            }
            self.length = 0;
            if have + taken == LENGTH
                && let Some(marker) = Marker::read(&whole)
            {
                on(marker);
                return Some(taken);
            }
            // It only looked like one; a real one may begin behind its first byte.
            self.keep(&whole[1..have]);
        }
        Some(0)
    }

    /// Keeps the beginning of a marker at the end of what was read.
    fn keep(&mut self, rest: &[u8]) {
        let tail = &rest[rest.len().saturating_sub(LENGTH - 1)..];
        let begins = |at: &usize| {
            let length = PREFIX.len().min(tail.len() - at);
            tail[*at..*at + length] == PREFIX[..length]
        };
        if let Some(at) = (0..tail.len()).find(begins) {
            let beginning = &tail[at..];
            self.kept[..beginning.len()].copy_from_slice(beginning);
            self.length = beginning.len() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(markers: &[Marker]) -> Vec<u8> {
        let mut text = b"t tw twb: ".to_vec();
        for marker in markers {
            let mut bytes = [0; LENGTH];
            marker.write(&mut bytes);
            text.extend_from_slice(b"data: \"");
            text.extend_from_slice(&bytes);
            text.extend_from_slice(b"xxxt\"\n\n");
        }
        text
    }

    fn found(pieces: &[&[u8]]) -> Vec<Marker> {
        let (search, mut scan, mut found) = (Search::new(), Scan::default(), Vec::new());
        for piece in pieces {
            scan.feed(&search, piece, &mut |marker| found.push(marker));
        }
        found
    }

    #[test]
    fn every_marker_is_found_wherever_the_stream_is_cut() {
        let markers = [1, 2, 3].map(|number| Marker { sent: u64::from(number) << 40, number });
        let text = text(&markers);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(found(&pieces), markers, "cut at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(found(&bytes), markers);
    }
}
