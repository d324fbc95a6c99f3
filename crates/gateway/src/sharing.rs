//! The limit of a user's streams over all nodes: what this node has is claimed at the broker, and what
//! it grants is held to.
//!
//! Once a second, what changed is claimed; a node on which nobody has logged in asks nothing. Where the
//! broker does not answer, each node's own count is all there is, and nobody is closed for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_broker::{ClaimError, Claims};
use tidewire_hub::LaneHandle;

use crate::app::App;
use crate::metrics::Limit;

/// How often what changed is claimed; what was granted runs out a few seconds later.
const EVERY: Duration = Duration::from_secs(1);
/// How often all is: what others spoilt is mended by that, and what was granted does not run out.
const ALL_EVERY: Duration = Duration::from_secs(15 * 60);
/// Users in one question: a millisecond or two of Redis's time.
const BATCH: usize = 256;

/// Keeps the limit for ever, or ends at once where there is none or this is the only node.
pub(crate) async fn keep(app: Arc<App>, lanes: Vec<LaneHandle>) {
    let users = app.allowance.users.clone();
    let Some(most) = users.most() else { return };
    if app.broker.claim(Claims { most, users: Vec::new() }).is_none() {
        return;
    }
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut all_at, mut had_any, mut reported) = (Instant::now(), false, false);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        if now - all_at >= ALL_EVERY {
            users.claim_all();
            all_at = now;
        }
        let claims = users.claims(now);
        let has_any = users.has_any();
        // One question more when the last has left: to say so.
        if !has_any && !had_any {
            continue;
        }
        had_any = has_any;
        match claim(&app, most, &claims).await {
            Ok(()) => reported = false,
            // That Redis is away is told by its links.
            Err(error) if !std::mem::replace(&mut reported, true) => {
                tracing::warn!(%error, "streams of users are counted on this node alone for now");
            }
            Err(_) => {}
        }
        let taken = users.take_back(Instant::now());
        for _ in 0..taken {
            app.metrics.limited(Limit::ConnectionsPerUser);
        }
        if taken > 0 {
            lanes.iter().for_each(|lane| lane.run(|lane| lane.reconsider()));
        }
    }
}

/// Claims, a part at a time.
async fn claim(app: &App, most: u64, claims: &[(Box<str>, u64)]) -> Result<(), ClaimError> {
    let users = &app.allowance.users;
    // Without a claim, too: that the node is there.
    let parts = claims.chunks(BATCH).chain(claims.is_empty().then_some(claims));
    for part in parts {
        let asked = Instant::now();
        let Some(receipt) = app.broker.claim(Claims { most, users: part.to_vec() }) else { break };
        let grants = receipt.await?;
        users.granted(part, &grants.users, asked);
        if grants.forgotten {
            users.claim_all();
        }
    }
    Ok(())
}
