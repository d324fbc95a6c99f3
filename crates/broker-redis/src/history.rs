//! Reading what stored channels keep, over a pool of its own: a long read delays no question about a
//! link, and publishes neither.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, Value};
use thiserror::Error;
use tidewire_broker::{Query, ReadError, Reading};
use tidewire_protocol::{Channel, EntryId, EnvelopeError, Incarnation};
use tokio::time::timeout;

use crate::delivery::{Kind, Refusals};
use crate::names::Names;
use crate::pool::{Pool, pool};
use crate::settings::{Settings, Target};
use crate::stored;
use crate::wire::reason;

/// As many connections as reads at a time; more wait. The gateway asks for fewer pages of history at a time,
/// so that the reads that mend windows find one.
const MAX_CONNECTIONS: usize = 8;

/// The reader.
pub(crate) struct History {
    pool: Pool,
    function: String,
    names: Names,
    patience: Duration,
}

/// Why there is no reading.
#[derive(Debug, Error)]
pub(crate) enum HistoryError {
    #[error("no answer from Redis within {0:?}")]
    Timeout(Duration),
    #[error("no connection to Redis: {0}")]
    Pool(String),
    #[error("Redis refuses: {}", reason(.0.to_string().as_bytes()))]
    Redis(#[from] RedisError),
    #[error("an answer that is none: {0}")]
    Answer(&'static str),
    #[error("an entry that is none: {0}")]
    Entry(#[from] EnvelopeError),
}

impl HistoryError {
    /// The function is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Redis(error) if crate::library::is_not_found(&error.to_string()))
    }

    /// The epoch's key is not there.
    pub(crate) fn is_no_epoch(&self) -> bool {
        matches!(self, Self::Redis(error) if error.code() == Some("NOEPOCH"))
    }
}

impl From<HistoryError> for ReadError {
    fn from(error: HistoryError) -> Self {
        Self(error.to_string())
    }
}

impl History {
    /// Connects to nothing yet.
    pub(crate) fn new(target: &Target, settings: &Arc<Settings>, names: Names) -> Self {
        let patience = settings.publish_timeout;
        let pool = pool(target, settings, MAX_CONNECTIONS, patience);
        let function = format!("{}_read", names.library());
        Self { pool, function, names, patience }
    }

    /// Reads a channel, in one step.
    pub(crate) async fn read(
        &self,
        channel: &Channel,
        query: Query,
        refusals: &Refusals,
    ) -> Result<Reading, HistoryError> {
        let answer = timeout(self.patience, self.ask(channel, query)).await;
        let answer = answer.map_err(|_| HistoryError::Timeout(self.patience))??;
        understand(answer, channel, refusals)
    }

    async fn ask(&self, channel: &Channel, query: Query) -> Result<Vec<Value>, HistoryError> {
        let mut connection =
            self.pool.get().await.map_err(|error| HistoryError::Pool(error.to_string()))?;
        let bound = |id: Option<EntryId>| id.map(|id| id.to_string()).unwrap_or_default();
        let answer = redis::cmd("FCALL_RO")
            .arg(&self.function)
            .arg(1)
            .arg(self.names.of(channel.as_str()))
            .arg(bound(query.after))
            .arg(bound(query.before))
            .arg(query.limit.max(1))
            .arg(u8::from(query.newest))
            .arg(query.bytes.unwrap_or(0))
            .query_async(&mut *connection)
            .await?;
        Ok(answer)
    }

    /// Makes the epoch's key, unless somebody else has.
    pub(crate) async fn begin_epoch(&self, fresh: &str) -> Result<(), HistoryError> {
        let begin = async {
            let mut connection =
                self.pool.get().await.map_err(|error| HistoryError::Pool(error.to_string()))?;
            let mut set = redis::cmd("SET");
            set.arg(self.names.epoch()).arg(fresh).arg("NX");
            Ok(set.exec_async(&mut *connection).await?)
        };
        timeout(self.patience, begin).await.map_err(|_| HistoryError::Timeout(self.patience))?
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }
}

/// Life, last id, evicted keys, time, whether it is cut, and the entries' frames.
fn understand(
    answer: Vec<Value>,
    channel: &Channel,
    refusals: &Refusals,
) -> Result<Reading, HistoryError> {
    let mut values = answer.into_iter();
    let mut text = |what| match values.next() {
        Some(Value::BulkString(bytes)) => {
            String::from_utf8(bytes).map_err(|_| HistoryError::Answer(what))
        }
        Some(Value::Int(number)) => Ok(number.to_string()),
        _ => Err(HistoryError::Answer(what)),
    };
    let incarnation = Incarnation::parse(&text("life")?).ok_or(HistoryError::Answer("life"))?;
    let top = match text("last id")?.as_str() {
        "" => None,
        id => Some(EntryId::parse(id).ok_or(HistoryError::Answer("last id"))?),
    };
    let evicted =
        text("evicted keys")?.parse().map_err(|_| HistoryError::Answer("evicted keys"))?;
    let now = text("time")?.parse().map_err(|_| HistoryError::Answer("time"))?;
    let is_cut = text("bound")? != "0";
    let entries = values
        .map(|value| {
            let Value::BulkString(frame) = value else { return Err(HistoryError::Answer("entry")) };
            let read = stored::read(&Bytes::from(frame))?;
            if let Some(fault) = read.fault {
                refusals.note(Kind::Stored, channel.as_str(), &fault);
            }
            Ok(read.message)
        })
        .collect::<Result<_, HistoryError>>()?;
    Ok(Reading { incarnation, top, evicted, now, entries, is_cut })
}
