//! Looks, at a slow pace, whether quiet channels stand where Redis says they do.
//!
//! A message whose frame was lost on a link that works shows itself by the next one's link. On a channel
//! on which nothing more is published it would never; nor would a flush. So the node's channels are
//! gone through, a part at a time, and the last ids of those that were quiet are asked for, many in one
//! command. It never writes, and it decides nothing: a read does.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use thiserror::Error;
use tidewire_broker::Events;
use tidewire_protocol::{Channel, EntryId, Timestamp};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::control::{Control, ControlError};
use crate::names::Names;
use crate::wire::reason;

/// The channels are gone through in so many steps, evenly spread over the interval.
const PARTS: usize = 64;
/// Keys in one command: some 50 µs of Redis's time.
const BATCH: usize = 512;
/// The least that a last id is kept. One that is gone by then says nothing.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

#[derive(Debug, Error)]
enum CompareError {
    #[error("no answer in time")]
    Silent,
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{}", reason(.0.to_string().as_bytes()))]
    Redis(#[from] RedisError),
}

/// Goes through the node's quiet channels.
pub(crate) struct Compare {
    pub(crate) control: Control,
    pub(crate) names: Names,
    pub(crate) events: Arc<dyn Events>,
    /// How long once through all of them takes.
    pub(crate) every: Duration,
}

impl Compare {
    /// Goes on for ever.
    pub(crate) async fn run(self) {
        let pace = self.every / u32::try_from(PARTS).unwrap_or(1);
        let mut steps = interval(pace.max(Duration::from_millis(1)));
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = false;
        for part in (0..PARTS).cycle() {
            steps.tick().await;
            match self.step(part).await {
                Ok(0) => {}
                Ok(channels) => {
                    tracing::info!(
                        channels,
                        "quiet channels stand elsewhere in Redis; they are read"
                    );
                }
                // That Redis is away is told by the links.
                Err(error) if !std::mem::replace(&mut reported, true) => {
                    tracing::warn!(%error, "quiet channels cannot be compared with Redis");
                    continue;
                }
                Err(_) => continue,
            }
            reported = false;
        }
    }

    /// Compares those of one part; how many stand elsewhere.
    async fn step(&self, part: usize) -> Result<usize, CompareError> {
        let mut differ = 0;
        for batch in self.events.quiet(part, PARTS).chunks(BATCH) {
            let ids = timeout(self.control.patience(), self.last_ids(batch)).await;
            let ids = ids.map_err(|_| CompareError::Silent)??;
            for ((channel, known), id) in batch.iter().zip(ids) {
                if is_elsewhere(*known, id.as_deref(), Timestamp::now().as_millis()) {
                    differ += 1;
                    self.events.doubted(channel, *known);
                }
            }
        }
        Ok(differ)
    }

    async fn last_ids(
        &self,
        batch: &[(Channel, EntryId)],
    ) -> Result<Vec<Option<String>>, CompareError> {
        let mut get = redis::cmd("MGET");
        for (channel, _) in batch {
            get.arg(self.names.last_id(channel.as_str()));
        }
        Ok(get.query_async(&mut *self.control.get().await?).await?)
    }
}

/// Whether a channel's last id in Redis is another one than that which the node knows. `now`: in ms.
fn is_elsewhere(known: EntryId, id: Option<&str>, now: u64) -> bool {
    match id {
        Some(id) => EntryId::parse(id) != Some(known),
        None if known.is_before_first() => false,
        None => u128::from(now.saturating_sub(known.ms)) < KEPT.as_millis(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_elsewhere() {
        let day = 24 * 3_600 * 1_000;
        let id = EntryId { ms: 100 * day, seq: 1 };
        let first = EntryId::before_first(7);
        for (known, held, now, differs) in [
            (id, Some(id.to_string()), 0, false),
            (id, Some("1-1".to_owned()), 0, true),
            (id, Some("nonsense".to_owned()), 0, true),
            (id, None, 101 * day, true),
            // A clock that is behind.
            (id, None, day, true),
            // It has expired.
            (id, None, 131 * day, false),
            (first, None, 0, false),
            (first, Some(id.to_string()), 0, true),
        ] {
            assert_eq!(
                is_elsewhere(known, held.as_deref(), now),
                differs,
                "{known} {held:?} {now}"
            );
        }
    }
}
