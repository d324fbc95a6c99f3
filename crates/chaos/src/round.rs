//! A round: a fresh cluster, a storm, a calm, and the check of what happened.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::check::{Violation, check};
use crate::cluster::{self, Serving, Storage};
use crate::history::{Event, ReaderNo, Record, now};
use crate::plan::{ChannelNo, Mode, Plan};
use crate::publisher::Publisher;
use crate::reader::Reader;
use crate::schedule::Row;
use crate::shared::{Phase, Shared};
use crate::{fault, witness};

/// How a round is to be.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) storm: Duration,
    pub(crate) nodes: usize,
    pub(crate) readers: usize,
    pub(crate) publishers: usize,
    /// The only faults, by their names; all if there are none.
    pub(crate) only: Vec<String>,
}

/// What a round has brought.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) records: Vec<Record>,
    pub(crate) violations: Vec<Violation>,
}

/// The mean time between a publisher's messages.
const PACE: Duration = Duration::from_millis(60);
/// The time that all may take to come to rest after the storm.
const SETTLE: Duration = Duration::from_secs(25);
/// The last fault may take so long to end: a restart, a drain.
const LAST_FAULT: Duration = Duration::from_secs(40);
/// A live message misses who comes back just then: another one is sent.
const REPEAT: Duration = Duration::from_secs(1);

type Followed = Vec<(ReaderNo, Vec<ChannelNo>)>;

/// Plays a round; logs go into the folder.
pub(crate) async fn play(settings: &Settings, logs: &Path) -> anyhow::Result<Outcome> {
    let (storage, serving) = cluster::start(settings.nodes, settings.mode, logs).await?;
    let fronts = serving.fronts.iter().map(|front| front.addr()).collect();
    let plan = Plan::standard(settings.mode);
    let shared = Arc::new(Shared::new(plan, fronts, storage.redis.addr()));
    let (readers, followed) = start_readers(&shared, settings);
    let publishers = start_publishers(&shared, settings);
    let witness = tokio::spawn(witness::run(shared.clone()));
    let stores = Row::storage(settings.seed, settings.nodes, settings.mode).only(&settings.only);
    let serves = Row::serving(settings.seed, settings.nodes).only(&settings.only);
    let storage = tokio::spawn(fault::storage(shared.clone(), storage, stores));
    let serving = tokio::spawn(fault::serving(shared.clone(), serving, serves));
    tokio::time::sleep(settings.storm).await;
    shared.phase.send_replace(Phase::Calm);
    let storage: Storage = ended(storage).await.context("the faults of Redis")?;
    let serving: Serving = ended(serving).await.context("the faults of the nodes")?;
    let _ = timeout(SETTLE, all(publishers)).await;
    settle(&shared, settings, &followed).await;
    shared.phase.send_replace(Phase::Over);
    let _ = timeout(SETTLE, all(readers)).await;
    let witness = timeout(SETTLE, witness).await.context("the witness does not end")?;
    witness?.context("the witness's last look")?;
    inspect(&shared, &serving)?;
    drop((storage, serving));
    let records = shared.history.take();
    let plan = shared.plan.clone();
    let violations = check(&plan, &records);
    Ok(Outcome { plan, records, violations })
}

fn start_readers(shared: &Arc<Shared>, settings: &Settings) -> (JoinSet<()>, Followed) {
    let (mut tasks, mut followed) = (JoinSet::new(), vec![]);
    for no in 0..settings.readers {
        let reader = Reader::new(no, shared.clone(), settings.seed);
        followed.push((no, reader.channels().to_vec()));
        tasks.spawn(reader.run());
    }
    (tasks, followed)
}

fn start_publishers(shared: &Arc<Shared>, settings: &Settings) -> JoinSet<()> {
    let publisher = |no| Publisher::new(no, shared.clone(), settings.seed, PACE).run();
    (0..settings.publishers).map(publisher).collect()
}

async fn all(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn ended<T>(task: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(LAST_FAULT, task).await.context("the last fault does not end")??
}

/// Publishes a last message on every channel and waits until every reader has it.
async fn settle(shared: &Arc<Shared>, settings: &Settings, followed: &Followed) {
    let deadline = Instant::now() + SETTLE;
    let mut publisher = Publisher::new(settings.publishers, shared.clone(), settings.seed, PACE);
    for channel in 0..shared.plan.channels.len() {
        let followers: Vec<_> =
            followed.iter().filter(|(_, channels)| channels.contains(&channel)).collect();
        let mut last = None;
        while Instant::now() < deadline {
            // On a stored channel one is enough, once it is acknowledged.
            if (last.is_none() || !shared.plan.is_stored(channel))
                && let Some((message, cursor)) = publisher.publish(channel).await
            {
                // Whoever has the first of them has heard.
                let (first, _) = *last.get_or_insert((message, cursor));
                if first == message {
                    shared.history.tell(Event::Final { channel, message, cursor });
                }
            }
            let Some((message, cursor)) = last else { continue };
            let until = Instant::now() + REPEAT;
            let has = |no: &ReaderNo| shared.history.has_reached(*no, channel, message, cursor);
            while Instant::now() < until && !followers.iter().all(|(no, _)| has(no)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if followers.iter().all(|(no, _)| has(no)) {
                break;
            }
        }
        if !shared.plan.is_stored(channel) {
            tell_deaf(shared, channel, last.map(|(message, _)| message), &followers);
        }
        if last.is_none() {
            let what =
                format!("nothing can be published on {} any more", shared.plan.name(channel));
            shared.history.tell(Event::Flaw { what });
        }
    }
}

/// On live channels the check has no places to go by.
fn tell_deaf(
    shared: &Shared,
    channel: ChannelNo,
    message: Option<u64>,
    followers: &[&(ReaderNo, Vec<ChannelNo>)],
) {
    let Some(message) = message else { return };
    for (no, _) in followers {
        if !shared.history.has_reached(*no, channel, message, None) {
            let name = shared.plan.name(channel);
            let what = format!("reader {no} hears nothing on {name}, at {}", now());
            shared.history.tell(Event::Flaw { what });
        }
    }
}

/// Keeps the logs, and looks for what no node may ever say.
fn inspect(shared: &Shared, serving: &Serving) -> anyhow::Result<()> {
    for node in &serving.nodes {
        node.keep_log()?;
        if node.process.log().contains("panicked") {
            let what = "a node panicked; see its log".into();
            shared.history.tell(Event::Flaw { what });
        }
    }
    Ok(())
}
