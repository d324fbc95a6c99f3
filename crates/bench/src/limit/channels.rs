//! The bare loop's channels: who is in each, and what is to go out to them.

use std::collections::HashMap;

use tidewire_websocket::{MessageKind, encode_with};

/// The bytes around a payload, as long as those that Tidewire sends.
const BEFORE: &[u8] = br#"{"type":"message","channel":"bench","event":"message","payload":"#;
const AFTER: &[u8] =
    br#","timestamp":"2026-01-01T00:00:00.000Z","messageId":"00000000-0000-7000-8000-000000000000"}"#;

/// One channel, with messages in the forms in which they are sent: one, or those of a turn one
/// after another.
#[derive(Default)]
pub(super) struct Channel {
    /// Peers, by number.
    pub(super) members: Vec<usize>,
    pub(super) web_socket: Vec<u8>,
    pub(super) sse: Vec<u8>,
}

/// All channels, by number.
#[derive(Default)]
pub(super) struct Channels {
    numbers: HashMap<String, usize>,
    all: Vec<Channel>,
    /// Those with something to go out.
    pub(super) due: Vec<usize>,
}

impl Channels {
    /// The number of the channel with this name.
    pub(super) fn number(&mut self, name: String) -> usize {
        let all = &mut self.all;
        *self.numbers.entry(name).or_insert_with(|| {
            all.push(Channel::default());
            all.len() - 1
        })
    }

    /// A channel by a number that [`Channels::number`] gave.
    pub(super) fn of(&mut self, number: usize) -> &mut Channel {
        &mut self.all[number]
    }

    /// Takes a peer in.
    pub(super) fn join(&mut self, number: usize, peer: usize) {
        self.of(number).members.push(peer);
    }

    /// Lets a peer go, if it is in.
    pub(super) fn leave(&mut self, number: usize, peer: usize) {
        if let Some(channel) = self.all.get_mut(number)
            && let Some(at) = channel.members.iter().position(|member| *member == peer)
        {
            channel.members.swap_remove(at);
        }
    }

    /// A message that is to go out.
    pub(super) fn push(&mut self, number: usize, payload: &[u8]) {
        let length = BEFORE.len() + payload.len() + AFTER.len();
        let frame = encode_with(MessageKind::Text, length, |out| {
            for part in [BEFORE, payload, AFTER] {
                out.extend_from_slice(part);
            }
        });
        let channel = &mut self.all[number];
        if channel.sse.is_empty() {
            self.due.push(number);
        }
        channel.web_socket.extend_from_slice(&frame);
        for part in [b"data: ", payload, b"\n\n"] {
            channel.sse.extend_from_slice(part);
        }
    }
}
