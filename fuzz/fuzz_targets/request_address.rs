//! Any text as the path and the query of a request: never a panic, and no channel comes out of it
//! that could not be named otherwise, nor more of them than are allowed.

#![no_main]

// The reader is the gateway's own, and stays private to it.
#[allow(dead_code)]
#[path = "../../crates/gateway/src/http/uri.rs"]
mod uri;

use http::Uri;
use libfuzzer_sys::fuzz_target;
use tidewire_protocol::{Channel, ChannelError, Code};

/// As the reader knows it: why there is no answer.
pub(crate) struct Problem;

impl Problem {
    fn new(_code: Code, detail: impl Into<String>) -> Self {
        assert!(detail.into().len() < 512);
        Self
    }
}

impl From<ChannelError> for Problem {
    fn from(_: ChannelError) -> Self {
        Self
    }
}

const MOST: usize = 4;

fuzz_target!(|data: &[u8]| {
    let Ok(uri) = Uri::try_from(data) else { return };
    if let Ok(channel) = uri::channel_of(&uri) {
        assert!(Channel::check(channel.as_str()).is_ok());
    }
    let Ok(query) = uri::Query::of(&uri) else { return };
    let _ = query.flag("envelope");
    if let Ok(channels) = query.channels(MOST) {
        assert!(channels.len() <= MOST);
        for (at, (channel, _)) in channels.iter().enumerate() {
            assert!(channels[..at].iter().all(|(other, _)| other != channel));
        }
    }
});
