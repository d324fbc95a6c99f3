//! The bound of what may wait for all slow clients of the node together: over it, those for whom
//! most waits are closed first.

use std::sync::Arc;
use std::time::Duration;

use tidewire_hub::{LaneHandle, Waits};
use tokio::sync::mpsc;

use crate::app::App;
use crate::metrics::Limit;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(250);

/// Keeps the bound for ever.
pub(crate) async fn keep(app: Arc<App>, lanes: Vec<LaneHandle>, most: usize) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let waiting = waiting(&lanes).await;
        for (lane, waits) in too_much(waiting, most, |(_, waits)| waits.bytes) {
            let app = app.clone();
            lanes[lane].run(move |lane| {
                if lane.give_up(&waits) {
                    app.metrics.limited(Limit::OutboxTotal);
                }
            });
        }
    }
}

/// What waits, with the number of its lane.
async fn waiting(lanes: &[LaneHandle]) -> Vec<(usize, Waits)> {
    let (tell, mut told) = mpsc::unbounded_channel();
    for (number, lane) in lanes.iter().enumerate() {
        let tell = tell.clone();
        lane.run(move |lane| {
            // Nobody listens only at the end of the node.
            let _ = tell.send((number, lane.waiting()));
        });
    }
    drop(tell);
    let mut all = Vec::new();
    while let Some((number, waits)) = told.recv().await {
        all.extend(waits.into_iter().map(|waits| (number, waits)));
    }
    all
}

/// Those that must go, the largest first, so that the rest is an eighth below the bound; none if
/// all together are within it.
fn too_much<T>(mut all: Vec<T>, most: usize, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut sum: usize = all.iter().map(&bytes).sum();
    if sum <= most {
        return Vec::new();
    }
    all.sort_by_key(|one| std::cmp::Reverse(bytes(one)));
    let target = most - most / 8;
    let stays = all.iter().position(|one| {
        let fits = sum <= target;
        sum -= bytes(one);
        fits
    });
    all.truncate(stays.unwrap_or(all.len()));
    all
}

#[cfg(test)]
mod tests {
    use super::too_much;

    #[test]
    fn the_largest_go_first_and_no_more_than_must() {
        let go = |all: &[usize], most| too_much(all.to_vec(), most, |bytes| *bytes);
        assert!(go(&[10, 50, 40], 100).is_empty());
        assert_eq!(go(&[10, 51, 40], 100), [51]);
        assert_eq!(go(&[40, 40, 40, 1], 100), [40]);
        assert_eq!(go(&[60, 60, 60], 100), [60, 60]);
        assert_eq!(go(&[200], 100), [200]);
    }
}
