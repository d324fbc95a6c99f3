//! A replica that is there for the whole round, for which acks wait: it stops, it is replaced, it
//! takes over. What was acknowledged must be on it then; the check holds that against what it has.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use redis::Value;
use tidewire_protocol::EntryId;
use tidewire_testkit::RedisServer;
use tokio::time::{Instant, sleep};

use crate::history::Event;
use crate::promotion::Replica;
use crate::schedule::{Fault, Kind};
use crate::shared::Shared;
use crate::witness;

/// By then the function answers, also if Redis has just lost it.
const PATIENCE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(50);

/// The replica, and the one before it, which is the master once the first one has died.
pub(crate) struct Standby {
    master: Option<Replica>,
    replica: Replica,
}

impl Standby {
    /// Attaches a replica.
    pub(crate) async fn of(master: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { master: None, replica: Replica::of(master).await? })
    }

    /// Carries out one of its faults, and undoes it.
    pub(crate) async fn suffer(
        &mut self,
        shared: &Shared,
        first: &mut RedisServer,
        fault: Fault,
    ) -> anyhow::Result<()> {
        match fault.kind {
            Kind::StandbyStop => {
                // It answers nobody meanwhile, as if its process were stopped.
                let mut redis = self.replica.connect().await?;
                let time = fault.hold.as_secs_f32().to_string();
                redis::cmd("DEBUG").arg("SLEEP").arg(time).exec_async(&mut redis).await?;
            }
            Kind::StandbyKill => {
                self.replica.kill().await?;
                sleep(fault.hold).await;
                self.replica = Replica::of(shared.redis).await?;
            }
            Kind::Takeover => self.take_over(shared, first, fault.hold).await?,
            other => anyhow::bail!("{other} is none of the replica's"),
        }
        Ok(())
    }

    async fn take_over(
        &mut self,
        shared: &Shared,
        first: &mut RedisServer,
        hold: Duration,
    ) -> anyhow::Result<()> {
        let life = life(shared).await?;
        match &mut self.master {
            Some(master) => master.kill().await?,
            None => first.kill().await,
        }
        self.tell(shared, life).await?;
        self.replica.promote(shared).await?;
        // Nothing can be acknowledged until there is another replica.
        sleep(hold).await;
        let next = Replica::of(shared.redis).await?;
        self.master = Some(std::mem::replace(&mut self.replica, next));
        Ok(())
    }

    /// Tells what the replica has.
    async fn tell(&self, shared: &Shared, life: u32) -> anyhow::Result<()> {
        let mut redis = self.replica.connect().await?;
        let channels = 0..shared.plan.channels.len();
        for channel in channels.filter(|channel| shared.plan.is_stored(*channel)) {
            let key = format!("{{tidewire:{}}}:h", shared.plan.name(channel));
            let mut range = redis::cmd("XRANGE");
            let found: Vec<Value> =
                range.arg(key).arg("-").arg("+").query_async(&mut redis).await?;
            let entries: Vec<EntryId> =
                found.iter().filter_map(witness::entry).map(|entry| entry.id).collect();
            shared.history.tell(Event::Heir { channel, life, entries });
        }
        Ok(())
    }
}

/// The life that Redis is in.
async fn life(shared: &Shared) -> anyhow::Result<u32> {
    let until = Instant::now() + PATIENCE;
    loop {
        let asked = async {
            let mut redis = shared.redis(PATIENCE).await?;
            let read = witness::read(&format!("tidewire:{}", shared.plan.name(0)));
            witness::life(&read.query_async(&mut redis).await?).context("no life")
        };
        match asked.await {
            Ok(life) => return Ok(life),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => sleep(GLANCE).await,
        }
    }
}
