//! The witness: looks at the streams themselves, past the gateway, and tells what is stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tidewire_protocol::{EntryId, Incarnation};

use crate::history::{Entry, Event, now};
use crate::message;
use crate::plan::ChannelNo;
use crate::shared::{Phase, Shared};

/// The time between its looks: far less than in which a channel is trimmed.
const INTERVAL: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(2);

/// Where it stopped: the last entry that it saw of a channel's life.
type Marks = HashMap<(ChannelNo, u32), EntryId>;

/// Looks until the round is over. What it cannot see while Redis is away it does not tell.
///
/// # Errors
/// When the last look, with Redis there, fails: then what it did not tell says nothing.
pub(crate) async fn run(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut marks = Marks::new();
    let mut redis = None;
    while shared.phase() < Phase::Over {
        redis = match redis {
            Some(redis) => Some(redis),
            None => shared.redis(PATIENCE).await.ok(),
        };
        if let Some(open) = &mut redis
            && look(&shared, open, &mut marks).await.is_err()
        {
            redis = None;
        }
        shared.sleep(INTERVAL).await;
    }
    look(&shared, &mut shared.redis(PATIENCE).await?, &mut marks).await
}

/// One look at every stored channel.
pub(crate) async fn look(
    shared: &Shared,
    redis: &mut MultiplexedConnection,
    marks: &mut Marks,
) -> anyhow::Result<()> {
    let channels = 0..shared.plan.channels.len();
    for channel in channels.filter(|channel| shared.plan.is_stored(*channel)) {
        let began = now();
        let name = format!("tidewire:{}", shared.plan.name(channel));
        // The life and the entries of one instant.
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.add_command(read(&name));
        pipe.cmd("XRANGE").arg(format!("{{{name}}}:h")).arg("-").arg("+");
        let (about, entries): (Value, Vec<Value>) = pipe.query_async(redis).await?;
        let life = life(&about).context("no life")?;
        let entries: Vec<_> = entries.iter().filter_map(entry).collect();
        tell(shared, marks, channel, life, began, entries);
    }
    Ok(())
}

/// What asks in which life a channel is.
pub(crate) fn read(name: &str) -> redis::Cmd {
    let mut read = redis::cmd("FCALL_RO");
    read.arg("tidewire_read").arg(1).arg(name).arg("").arg("").arg(1).arg(1).arg(0);
    read
}

/// The life in the answer.
pub(crate) fn life(about: &Value) -> Option<u32> {
    let Value::Array(parts) = about else { return None };
    Some(Incarnation::parse(&text(parts.first()?)?)?.tag())
}

fn tell(
    shared: &Shared,
    marks: &mut Marks,
    channel: ChannelNo,
    life: u32,
    began: u64,
    mut entries: Vec<Entry>,
) {
    let mark = marks.get(&(channel, life)).copied();
    entries.retain(|entry| mark.is_none_or(|mark| mark < entry.id));
    // Whether something was trimmed before it was seen.
    let hole = entries.first().is_some_and(|first| first.prev != mark);
    if let Some(last) = entries.last() {
        marks.insert((channel, life), last.id);
    }
    for two in entries.windows(2).filter(|two| two[1].prev != Some(two[0].id)) {
        let name = shared.plan.name(channel);
        let what = format!("on {name} {} does not name {} before it", two[1].id, two[0].id);
        shared.history.tell(Event::Flaw { what });
    }
    shared.history.tell(Event::Scan { channel, began, life, hole, entries });
}

/// An entry of `XRANGE`: its id and its one field, the head (the predecessor first) and the body.
pub(crate) fn entry(value: &Value) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let [id, Value::Array(fields)] = &parts[..] else { return None };
    let [head, Value::BulkString(body)] = &fields[..] else { return None };
    let id = EntryId::parse(&text(id)?)?;
    let prev = EntryId::parse(text(head)?.split(' ').next()?);
    Some(Entry { id, prev, message: message::number_in(body) })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
