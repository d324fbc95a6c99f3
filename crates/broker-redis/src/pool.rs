//! Connections for questions, kept for the next one. They are made as links and publishers make
//! theirs; the redis crate speaks on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolConfig, RecycleError, RecycleResult, Timeouts};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::settings::{Settings, Target};
use crate::stream::Stream;
use crate::wire::{ConnectError, reason};

/// The pool.
pub(crate) type Pool = managed::Pool<Manager>;
/// A connection of the pool, which goes back there.
pub(crate) type Connection = Object<Manager>;

/// Makes the pool's connections. They belong to the runtime in which the broker was made, the process's:
/// on that of whoever asks first, a lane's, they would take its time, and end with it.
pub(crate) struct Manager {
    owner: Option<Handle>,
    target: Target,
    settings: Arc<Settings>,
    patience: Duration,
    pings: AtomicUsize,
}

impl managed::Manager for Manager {
    type Type = MultiplexedConnection;
    type Error = ConnectError;

    async fn create(&self) -> Result<MultiplexedConnection, ConnectError> {
        let (target, settings, patience) =
            (self.target.clone(), self.settings.clone(), self.patience);
        let connecting = async move {
            let late = |_| Err(ConnectError::late(&target, &settings));
            let steps = connect(&target, &settings, patience);
            timeout(settings.connect_timeout, steps).await.unwrap_or_else(late)
        };
        match &self.owner {
            // Ends within the time, also when nobody waits for it any more.
            Some(owner) => owner.spawn(connecting).await.unwrap_or_else(|_| {
                Err(ConnectError::Refused("the runtime of the connections has ended".into()))
            }),
            None => connecting.await,
        }
    }

    async fn recycle(
        &self,
        connection: &mut MultiplexedConnection,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        // Who had it may have gone in the middle of a transaction; and another's answer would show
        // that the answers are out of step.
        let number = self.pings.fetch_add(1, Ordering::Relaxed).to_string();
        let mut ask = redis::pipe();
        ask.cmd("UNWATCH").ignore().cmd("PING").arg(&number);
        let asked = ask.query_async::<(String,)>(connection).await;
        let (answer,) = asked.map_err(|error| RecycleError::Backend(error.into()))?;
        if answer == number { Ok(()) } else { Err(RecycleError::message("not the answer to PING")) }
    }
}

async fn connect(
    target: &Target,
    settings: &Settings,
    patience: Duration,
) -> Result<MultiplexedConnection, ConnectError> {
    let stream = Stream::open(target, settings).await?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(patience));
    let info = target.info.redis_settings();
    let (connection, driver) = MultiplexedConnection::new_with_config(info, stream, config).await?;
    // It ends with the last of what belongs to the connection.
    tokio::spawn(driver);
    Ok(connection)
}

/// A pool of so many connections whose every step takes at most so long. It connects when it is used.
pub(crate) fn pool(
    target: &Target,
    settings: &Arc<Settings>,
    max_size: usize,
    patience: Duration,
) -> Pool {
    let (target, settings) = (target.clone(), settings.clone());
    let time = Some(patience);
    let timeouts = Timeouts { wait: time, create: time, recycle: time };
    let config = PoolConfig { max_size, timeouts, ..PoolConfig::default() };
    let owner = Handle::try_current().ok();
    let manager = Manager { owner, target, settings, patience, pings: AtomicUsize::new(0) };
    let pool = Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build();
    #[allow(clippy::expect_used, reason = "it asks for a runtime where there are time-outs")]
    pool.expect("there is a runtime")
}

impl From<redis::RedisError> for ConnectError {
    fn from(error: redis::RedisError) -> Self {
        Self::Refused(reason(error.to_string().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tidewire_testkit::RedisServer;

    use super::*;

    /// Takes a connection out of the pool, and gives it back; its id in Redis.
    async fn use_one(pool: &Pool) -> u64 {
        let mut connection = pool.get().await.unwrap();
        redis::cmd("CLIENT").arg("ID").query_async(&mut *connection).await.unwrap()
    }

    /// On a thread and a runtime of its own, as a lane's, which then are gone.
    fn use_one_elsewhere(pool: &Pool) -> u64 {
        std::thread::scope(|scope| {
            let lane = || tokio::runtime::Builder::new_current_thread().enable_all().build();
            scope.spawn(move || lane().unwrap().block_on(use_one(pool))).join().unwrap()
        })
    }

    /// Made on the lane that asked first, a connection took that lane's time for everybody, and
    /// ended with it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_do_not_belong_to_who_asks() {
        let redis = RedisServer::start().await;
        let settings = Arc::new(Settings::new(redis.url()));
        let target = Target::new(&settings).unwrap();
        let pool = pool(&target, &settings, 2, Duration::from_secs(5));
        let first = tokio::task::block_in_place(|| use_one_elsewhere(&pool));
        let second = tokio::task::block_in_place(|| use_one_elsewhere(&pool));
        assert_eq!([second, use_one(&pool).await], [first, first]);
    }
}
