//! Carries out what the schedule says, and undoes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tidewire_testkit::Direction;
use tokio::time::sleep;

use crate::cluster::{Serving, Storage};
use crate::history::Event;
use crate::message::BURST;
use crate::plan::{DRAIN, DRAIN_GRACE};
use crate::promotion::Replica;
use crate::schedule::{Fault, Kind};
use crate::shared::{Phase, Shared, THIRDS};

/// How much later everything comes on a late link.
const LATE: Duration = Duration::from_millis(120);
/// A burst: more than may wait for a client, and than an output buffer may hold.
const BURST_MESSAGES: usize = 400;
const BURST_BYTES: usize = 16_000;
const PATIENCE: Duration = Duration::from_secs(10);
/// The oldest copy of the data to which Redis is rolled back is of this age or younger.
const COPY_EVERY: Duration = Duration::from_secs(4);

/// Breaks what stores until the storm is over.
pub(crate) async fn storage(
    shared: Arc<Shared>,
    mut storage: Storage,
    row: impl Iterator<Item = Fault>,
) -> anyhow::Result<Storage> {
    let mut copied = Instant::now();
    storage.copy_data()?;
    for fault in row {
        if shared.phase() > Phase::Storm {
            break;
        }
        mark(&shared, fault, true);
        apply_to_storage(&shared, &mut storage, fault)
            .await
            .with_context(|| fault.kind.to_string())?;
        mark(&shared, fault, false);
        if copied.elapsed() > COPY_EVERY {
            storage.copy_data()?;
            copied = Instant::now();
        }
        rest(&shared, fault).await;
    }
    Ok(storage)
}

/// Breaks what serves until the storm is over.
pub(crate) async fn serving(
    shared: Arc<Shared>,
    mut serving: Serving,
    row: impl Iterator<Item = Fault>,
) -> anyhow::Result<Serving> {
    for fault in row {
        if shared.phase() > Phase::Storm {
            break;
        }
        mark(&shared, fault, true);
        apply_to_serving(&shared, &mut serving, fault)
            .await
            .with_context(|| fault.kind.to_string())?;
        mark(&shared, fault, false);
        rest(&shared, fault).await;
    }
    Ok(serving)
}

fn mark(shared: &Shared, fault: Fault, begins: bool) {
    shared.history.tell(Event::Fault { kind: fault.kind, node: fault.node, begins });
}

async fn rest(shared: &Shared, fault: Fault) {
    let _ = tokio::time::timeout(fault.rest, shared.reached(Phase::Calm)).await;
}

async fn apply_to_storage(
    shared: &Shared,
    storage: &mut Storage,
    fault: Fault,
) -> anyhow::Result<()> {
    let link = &storage.links[fault.node];
    let hold = sleep(fault.hold);
    match fault.kind {
        Kind::LinkCut => link.cut().await,
        Kind::LinkReset => link.reset().await,
        Kind::LinkStall => link.stall_all(),
        Kind::LinkHalfUp => link.stall(Direction::Up),
        Kind::LinkHalfDown => link.stall(Direction::Down),
        Kind::LinkDelay => storage.links.iter().for_each(|link| link.delay(LATE)),
        Kind::RedisStop => storage.redis.pause(),
        Kind::RedisRestart | Kind::RedisEmpty | Kind::RedisRollback => storage.redis.kill().await,
        Kind::Promotion => return fail_over(shared, storage, fault).await,
        Kind::StandbyStop | Kind::StandbyKill | Kind::Takeover => {
            let standby = storage.standby.as_mut().context("there is no replica")?;
            return standby.suffer(shared, &mut storage.redis, fault).await;
        }
        Kind::OutputLimit => {
            command(shared, &["CONFIG", "SET", OUTPUT_LIMIT, "pubsub 256kb 128kb 1"]).await?;
            link.stall(Direction::Down);
            burst(shared).await?;
        }
        Kind::Burst => {
            shared.paused.send_replace(Some(fault.node % THIRDS));
            burst(shared).await?;
        }
        Kind::PubSubKill => command(shared, &["CLIENT", "KILL", "TYPE", "pubsub"]).await?,
        Kind::ClientPause => {
            let time = fault.hold.as_millis().to_string();
            let what = if fault.node == 0 { "ALL" } else { "WRITE" };
            command(shared, &["CLIENT", "PAUSE", &time, what]).await?;
        }
        Kind::DebugSleep => {
            command(shared, &["DEBUG", "SLEEP", &fault.hold.as_secs_f32().to_string()]).await?;
        }
        Kind::FunctionFlush => command(shared, &["FUNCTION", "FLUSH"]).await?,
        Kind::Flush => command(shared, &["FLUSHALL"]).await?,
        other => anyhow::bail!("{other} is none of the storage's"),
    }
    if fault.kind != Kind::DebugSleep {
        hold.await;
    }
    match fault.kind {
        Kind::RedisStop => storage.redis.resume(),
        Kind::Burst => {
            shared.paused.send_replace(None);
        }
        Kind::RedisEmpty => storage.remove_data()?,
        Kind::RedisRollback => storage.roll_back()?,
        Kind::OutputLimit => {
            // Redis' own default.
            command(shared, &["CONFIG", "SET", OUTPUT_LIMIT, "pubsub 32mb 8mb 60"]).await?;
        }
        _ => {}
    }
    if matches!(fault.kind, Kind::RedisRestart | Kind::RedisEmpty | Kind::RedisRollback) {
        storage.redis.restart().await;
    }
    for link in &storage.links {
        link.heal().await;
    }
    Ok(())
}

/// The replica is the master for a while; then the old one is back, without what came after it.
async fn fail_over(shared: &Shared, storage: &mut Storage, fault: Fault) -> anyhow::Result<()> {
    let mut replica = Replica::of(shared.redis).await?;
    storage.redis.kill().await;
    replica.promote(shared).await?;
    sleep(fault.hold).await;
    replica.kill().await?;
    storage.redis.restart().await;
    Ok(())
}

const OUTPUT_LIMIT: &str = "client-output-buffer-limit";

async fn command(shared: &Shared, command: &[&str]) -> anyhow::Result<()> {
    let mut redis = shared.redis(PATIENCE).await?;
    redis::cmd(command[0]).arg(&command[1..]).exec_async(&mut redis).await?;
    Ok(())
}

/// A burst on the live channels, in one go: no subscriber can read in between.
async fn burst(shared: &Shared) -> anyhow::Result<()> {
    let script = "for _ = 1, ARGV[1] do redis.call('PUBLISH', KEYS[1], ARGV[2]) end";
    let body = serde_json::json!({"payload": {BURST: "x".repeat(BURST_BYTES)}}).to_string();
    let mut redis = shared.redis(PATIENCE).await?;
    let channels = 0..shared.plan.channels.len();
    for channel in channels.filter(|channel| !shared.plan.is_stored(*channel)) {
        let mut call = redis::cmd("EVAL");
        call.arg(script).arg(1).arg(format!("tidewire:{}", shared.plan.name(channel)));
        call.arg(BURST_MESSAGES).arg(&body).exec_async(&mut redis).await?;
    }
    Ok(())
}

async fn apply_to_serving(
    shared: &Shared,
    serving: &mut Serving,
    fault: Fault,
) -> anyhow::Result<()> {
    let (node, front) = (&mut serving.nodes[fault.node], &serving.fronts[fault.node]);
    match fault.kind {
        Kind::NodeKill => node.process.kill().await,
        Kind::NodeStop => node.process.pause(),
        Kind::NodeTerm => {
            let began = Instant::now();
            node.process.terminate();
            let status = node.process.wait().await;
            let took = began.elapsed();
            // A second for a busy machine.
            if !status.success() || took > DRAIN + DRAIN_GRACE + Duration::from_secs(1) {
                let what = format!("told to stop, node {} took {took:?}: {status}", fault.node);
                shared.history.tell(Event::Flaw { what });
            }
        }
        Kind::ClientsCut => front.cut().await,
        Kind::ClientsReset => front.reset().await,
        Kind::ClientsStall => front.stall_all(),
        Kind::ClientsHalf => front.stall(Direction::Down),
        Kind::ClientsDelay => front.delay(LATE),
        Kind::ReadersPause => {
            shared.paused.send_replace(Some(fault.node % THIRDS));
        }
        other => anyhow::bail!("{other} is none of the serving's"),
    }
    sleep(fault.hold).await;
    match fault.kind {
        Kind::NodeKill | Kind::NodeTerm => node.restart().await?,
        Kind::NodeStop => node.process.resume(),
        Kind::ReadersPause => {
            shared.paused.send_replace(None);
        }
        _ => front.heal().await,
    }
    Ok(())
}
