//! How fast a client may send: two token buckets, of frames and of bytes.
//!
//! A bucket holds twice what may be sent in a second, so that a client may begin with a burst. A
//! frame over it is answered with `too_fast` and not acted on; such answers are errors like others,
//! and too many of them end the session.

use std::cell::Cell;

use tidewire_auth::Identity;
use tidewire_hub::Transport;
use tidewire_protocol::{Code, FrameId, Reply};

use super::Session;
use crate::metrics::Limit;

/// What is left of both, and when that was.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// In thousandths of a frame.
    frames_used: Cell<u32>,
    bytes_used: Cell<u32>,
    /// The node's milliseconds, wrapping.
    at: Cell<u32>,
}

/// What one second may have; 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) frames: u32,
    pub(super) bytes: u32,
}

impl Pace {
    /// Takes a frame of so many bytes out; else says which limit it is over.
    pub(super) fn take(&self, rates: Rates, bytes: usize, now: u32) -> Result<(), Limit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.drain(rates, now);
        let (frames, used) = (self.frames_used.get(), self.bytes_used.get());
        let frames = frames.saturating_add(1_000);
        if rates.frames > 0 && frames > rates.frames.saturating_mul(2_000) {
            return Err(Limit::FramesPerSecond);
        }
        let used = used.saturating_add(bytes);
        if rates.bytes > 0 && used > rates.bytes.saturating_mul(2) {
            return Err(Limit::BytesPerSecond);
        }
        self.frames_used.set(if rates.frames > 0 { frames } else { 0 });
        self.bytes_used.set(if rates.bytes > 0 { used } else { 0 });
        Ok(())
    }

    /// Takes bytes out of a frame that has not ended. There may be fewer left: it is told when it ends,
    /// for it is over the limit then, and costs no more than that.
    fn take_part(&self, rates: Rates, bytes: usize, now: u32) {
        self.drain(rates, now);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let over = rates.bytes.saturating_mul(2).saturating_add(1);
        let used = self.bytes_used.get().saturating_add(bytes).min(over);
        self.bytes_used.set(if rates.bytes > 0 { used } else { 0 });
    }

    /// What was used is less after a while.
    fn drain(&self, rates: Rates, now: u32) {
        let passed = u64::from(now.wrapping_sub(self.at.replace(now)));
        // A thousandth of a frame is what a rate of one gives in a millisecond.
        let frames = drained(self.frames_used.get(), passed * u64::from(rates.frames));
        let used = drained(self.bytes_used.get(), passed * u64::from(rates.bytes) / 1_000);
        self.frames_used.set(frames);
        self.bytes_used.set(used);
    }
}

fn drained(used: u32, by: u64) -> u32 {
    used.saturating_sub(u32::try_from(by).unwrap_or(u32::MAX))
}

impl Session {
    /// Whether the client may send this frame of so many bytes now; else it has been told.
    pub(super) fn keeps_pace(&self, id: Option<&FrameId>, bytes: usize) -> bool {
        let Err(limit) = self.take_pace(bytes) else { return true };
        let rates = self.rates();
        let message = match limit {
            Limit::BytesPerSecond => format!("at most {} bytes a second", rates.bytes),
            _ => format!("at most {} frames a second", rates.frames),
        };
        let (code, message) = (Code::TooFast, message.as_str());
        self.app.metrics.error(code);
        self.reply(&Reply::Error { id, code, message, retry: Some(1_000) });
        self.count_error();
        false
    }

    /// Whether a frame that has no answer of ours may come now: a ping, a pong, a part of a message.
    /// One that came too fast is an error like others, but there is no frame to tell it with.
    pub(super) fn keeps_silent_pace(&self, bytes: usize) -> bool {
        let in_time = self.take_pace(bytes).is_ok();
        if !in_time {
            self.count_error();
        }
        in_time
    }

    /// Bytes of a message that goes on have come.
    pub(super) fn pay(&self, bytes: usize) {
        let rates = self.rates();
        if bytes > 0 && rates.bytes > 0 {
            self.pace.take_part(rates, bytes, self.app.millis());
        }
    }

    /// What the client is told of how fast it may send: a client that goes by it is never too fast,
    /// unless its user has other connections.
    pub(super) fn pace_of(&self, who: &Identity) -> tidewire_protocol::Pace {
        if self.form.transport() != Transport::WebSocket {
            return tidewire_protocol::Pace::default();
        }
        let Rates { frames, bytes } = self.rates();
        let of_user = who.user().and(self.app.settings.publishes_per_user).unwrap_or(0);
        // 0 is no limit.
        let frames = [frames, of_user].into_iter().filter(|rate| *rate > 0).min().unwrap_or(0);
        tidewire_protocol::Pace { frames, bytes }
    }

    fn rates(&self) -> Rates {
        let settings = &self.app.settings;
        Rates { frames: settings.frames_per_second, bytes: settings.bytes_per_second }
    }

    fn take_pace(&self, bytes: usize) -> Result<(), Limit> {
        let rates = self.rates();
        if rates.frames == 0 && rates.bytes == 0 {
            return Ok(());
        }
        let taken = self.pace.take(rates, bytes, self.app.millis());
        if let Err(limit) = taken {
            self.app.metrics.limited(limit);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let pace = Pace::default();
        let rates = Rates { frames: 10, bytes: 1_000 };
        for _ in 0..20 {
            assert_eq!(pace.take(rates, 1, 5), Ok(()));
        }
        assert_eq!(pace.take(rates, 1, 5), Err(Limit::FramesPerSecond));
        // A tenth of a second later there is room for one.
        assert_eq!(pace.take(rates, 1, 105), Ok(()));
        assert_eq!(pace.take(rates, 1, 105), Err(Limit::FramesPerSecond));
        assert_eq!(pace.take(rates, 2_001, 3_000), Err(Limit::BytesPerSecond));
        assert_eq!(pace.take(rates, 2_000, 3_000), Ok(()));
        assert_eq!(pace.take(rates, 1, 3_000), Err(Limit::BytesPerSecond));
        assert_eq!(pace.take(rates, 100, 3_100), Ok(()));
    }

    #[test]
    fn a_part_is_paid_for_when_it_comes_and_told_at_the_end() {
        let pace = Pace::default();
        let rates = Rates { frames: 10, bytes: 1_000 };
        pace.take_part(rates, 1_500, 5);
        assert_eq!(pace.take(rates, 500, 5), Ok(()));
        pace.take_part(rates, 90_000, 5);
        assert_eq!(pace.take(rates, 0, 5), Err(Limit::BytesPerSecond));
        // Not more than what there was is owed.
        assert_eq!(pace.take(rates, 0, 6), Ok(()));
        assert_eq!(pace.take(rates, 900, 906), Ok(()));
        // Without a limit nothing is owed.
        pace.take_part(Rates { frames: 0, bytes: 0 }, 1 << 20, 906);
        assert_eq!(pace.bytes_used.get(), 0);
    }

    #[test]
    fn without_limits_there_are_none_and_the_clock_may_wrap() {
        let pace = Pace::default();
        for _ in 0..1_000 {
            assert_eq!(pace.take(Rates { frames: 0, bytes: 0 }, 1 << 20, 0), Ok(()));
        }
        let rates = Rates { frames: 1, bytes: 0 };
        assert_eq!(pace.take(rates, 1, u32::MAX), Ok(()));
        assert_eq!(pace.take(rates, 1, u32::MAX), Ok(()));
        assert!(pace.take(rates, 1, u32::MAX).is_err());
        assert_eq!(pace.take(rates, 1, 1_000), Ok(()));
    }
}
