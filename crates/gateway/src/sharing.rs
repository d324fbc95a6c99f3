//! The limit of a user's streams over all nodes: what this node has is claimed at the broker, and what
//! it grants is held to; and those who are counted are asked whether they are there.
//!
//! Once a second, what changed is claimed; a node on which nobody has logged in asks nothing. Where the
//! broker does not answer, each node's own count is all there is, and nobody is closed for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_broker::{Claim, ClaimError, Claims};
use tidewire_hub::LaneHandle;

use crate::app::App;
use crate::metrics::Limit;
use crate::users::{Address, Users};

/// How often what changed is claimed; what was granted runs out a few seconds later.
const EVERY: Duration = Duration::from_secs(1);
/// How often all is: what others spoilt is mended by that, and what was granted does not run out.
const ALL_EVERY: Duration = Duration::from_secs(15 * 60);
/// Users in one question: a millisecond or two of Redis's time.
const BATCH: usize = 256;

/// Keeps the limit for ever, or ends at once where there is none.
pub(crate) async fn keep(app: Arc<App>, lanes: Vec<LaneHandle>) {
    let users = app.allowance.users.clone();
    let Some(most) = users.most() else { return };
    // A question that waits for Redis must not hold up those who wait for a place.
    tokio::join!(attend(&users, &lanes), share(&app, most));
}

/// Has sessions look at their seats, and notes what comes of it, for ever.
async fn attend(users: &Users, lanes: &[LaneHandle]) {
    loop {
        let news = users.news();
        if users.is_asking() {
            // Who does not answer says nothing.
            let _ = tokio::time::timeout(EVERY, news).await;
        } else {
            news.await;
        }
        users.settle(Instant::now());
        for Address { lane, slot } in users.to_look() {
            if let Some(lane) = lanes.get(lane as usize) {
                lane.run(move |lane| lane.reconsider(slot as usize));
            }
        }
    }
}

/// Shares the limit with the other nodes, for ever, or ends at once where there are none.
async fn share(app: &App, most: u64) {
    let users = &app.allowance.users;
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
        let outcome = claim(app, most, &claims).await;
        if outcome.is_err() {
            users.is_away();
        }
        match outcome {
            Ok(None) => reported = false,
            // Once, and that Redis is away is told by its links.
            _ if std::mem::replace(&mut reported, true) => {}
            Ok(Some(error)) => {
                tracing::warn!(
                    error,
                    "streams of some users are counted on each node alone for now"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "streams of users are counted on this node alone for now");
            }
        }
        for _ in 0..users.take_back(Instant::now()) {
            app.metrics.limited(Limit::ConnectionsPerUser);
        }
    }
}

/// Claims, a part at a time. What cannot be kept of some users holds up nobody else; the reason is given.
async fn claim(app: &App, most: u64, claims: &[Claim]) -> Result<Option<String>, ClaimError> {
    let users = &app.allowance.users;
    let mut fault = None;
    // Without a claim, too: that the node is there.
    let parts = claims.chunks(BATCH).chain(claims.is_empty().then_some(claims));
    for part in parts {
        let asked = Instant::now();
        let Some(receipt) = app.broker.claim(Claims { most, users: part.to_vec() }) else { break };
        let grants = receipt.await?;
        users.granted(part, &grants.users, asked);
        users.ask(&grants.asked, asked);
        if grants.forgotten {
            users.claim_all();
        }
        fault = fault.or(grants.fault);
    }
    Ok(fault)
}
