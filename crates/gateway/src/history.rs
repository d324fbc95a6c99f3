//! Places and pages: what a client says about the past of a channel, checked, and read.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use tidewire_auth::{Denied, Identity};
use tidewire_broker::{Query, ReadError};
use tidewire_hub::Start;
use tidewire_protocol::{BodyError, Channel, Code, Cursor, Message, Page, Payload, Rewind};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::app::App;
use crate::auth::refusal;
use crate::seldom::Seldom;

/// Pages that are read at a time. Fewer than a broker has connections for reads, so that those which mend
/// windows need not wait for them.
const PAGES: usize = 6;
/// How long one waits for its turn: as long as a read may take, by default.
const PATIENCE: Duration = Duration::from_secs(2);

/// A part of a channel's history.
pub(crate) struct Part {
    /// Oldest first.
    pub(crate) messages: Vec<Message>,
    /// Where the next part in the same direction begins, if there may be one.
    pub(crate) next: Option<Cursor>,
    /// Until it is written.
    _turn: OwnedSemaphorePermit,
}

/// The pages of history that are read at a time: each is held twice, as messages and as an answer, until
/// that is written.
pub(crate) struct Pages {
    turns: Arc<Semaphore>,
    failures: Counter,
    told: Seldom,
}

impl Pages {
    pub(crate) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(PAGES)),
            failures: counter!("tidewire_history_failures_total"),
            told: Seldom::default(),
        }
    }

    /// Waits for a turn; none if that takes too long. First come, first served.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        timeout(PATIENCE, self.turns.clone().acquire_owned()).await.ok()?.ok()
    }

    /// Notes what is wrong with the broker: for operators, not for who asked.
    fn failed(&self, channel: &Channel, error: &ReadError) {
        self.failures.increment(1);
        if self.told.is_due() {
            tracing::warn!(%channel, %error, "a page of history cannot be read; the next such line is a minute away");
        }
    }
}

fn try_again() -> BodyError {
    error(Code::Unavailable, "the history cannot be read now; try again")
}

fn error(code: Code, message: impl Into<String>) -> BodyError {
    BodyError { code, message: message.into() }
}

impl App {
    /// Where a subscription begins that names a place or how far back.
    pub(crate) fn start_at(
        &self,
        channel: &Channel,
        cursor: Option<&str>,
        rewind: Option<Rewind>,
    ) -> Result<Start, BodyError> {
        if cursor.is_none() && rewind.is_none() {
            return Ok(Start::Present);
        }
        self.check_stored(channel)?;
        Ok(match (cursor, rewind) {
            (Some(cursor), _) => Start::After(parse(cursor, channel)?),
            (None, Some(Rewind::Last(count))) => Start::Last(count),
            (None, Some(Rewind::Since(time))) => Start::Since(time),
            (None, None) => Start::Present,
        })
    }

    /// Where they begin, if they may subscribe to the channel and begin there: going on from a
    /// place is part of subscribing, looking further back is reading. A client can make a place up,
    /// so who may not read gets from it what follows without a hole, or a gap and nothing of what is
    /// kept.
    pub(crate) fn may_start(
        &self,
        who: &Identity,
        channel: &Channel,
        start: Start,
    ) -> Result<Start, Denied> {
        self.auth.policy.may_subscribe(who, channel)?;
        match start {
            Start::Last(_) | Start::Since(_) => {
                self.auth.policy.may_read(who, channel).map(|()| start)
            }
            Start::After(place) if self.auth.policy.may_read(who, channel).is_err() => {
                Ok(Start::OnlyAfter(place))
            }
            Start::Present | Start::After(_) | Start::OnlyAfter(_) | Start::Lost => Ok(start),
        }
    }

    /// Refuses a channel that keeps nothing.
    pub(crate) fn check_stored(&self, channel: &Channel) -> Result<(), BodyError> {
        if self.settings.namespaces.of(channel).is_stored() {
            return Ok(());
        }
        let message = format!("'{channel}' is a live channel: it keeps no messages");
        Err(error(Code::NoHistory, message))
    }

    /// Reads a part of a channel's history.
    pub(crate) fn history(
        self: &Arc<Self>,
        who: &Identity,
        channel: &Channel,
        page: &Page,
    ) -> Result<impl Future<Output = Result<Part, BodyError>> + use<>, BodyError> {
        self.auth.policy.may_read(who, channel).map_err(refusal)?;
        self.check_stored(channel)?;
        let place = |text: &Option<Box<str>>| {
            text.as_deref().map(|text| parse(text, channel).map(|cursor| cursor.id)).transpose()
        };
        let (after, before) = (place(&page.since)?, place(&page.before)?);
        // From a place forwards; else from the end, or a place, backwards.
        let newest = after.is_none();
        let limit = page.limit;
        // So that its answer has room among what may wait for a client.
        let most = self.settings.outbox.bytes / 2;
        // One more than asked for shows whether there is more.
        let query = Query { after, before, limit: limit + 1, newest, bytes: Some(most) };
        let (app, channel) = (self.clone(), channel.clone());
        Ok(async move {
            let turn = app.pages.turn().await.ok_or_else(try_again)?;
            let reading = app.broker.read(&channel, query).await.map_err(|error| {
                app.pages.failed(&channel, &error);
                try_again()
            })?;
            let mut messages = reading.entries;
            let fit = limit.min(how_many_fit(&messages, newest, most));
            let more = messages.len() > fit || reading.is_cut;
            if newest {
                messages.drain(..messages.len().saturating_sub(fit));
            } else {
                messages.truncate(fit);
            }
            let edge = if newest { messages.first() } else { messages.last() };
            let next = edge.filter(|_| more).and_then(|message| message.cursor(&channel));
            Ok(Part { messages, next, _turn: turn })
        })
    }
}

/// How many messages a page of so many bytes holds, from its end or its beginning; one at least. A
/// page is written whole before its client has read anything: a thousand messages of 64 KiB, asked
/// for on every stream of an HTTP/2 connection that nobody reads, would be gigabytes.
fn how_many_fit(messages: &[Message], newest: bool, most: usize) -> usize {
    let size = |message: &Message| {
        let payload = match &message.payload {
            Payload::Json(json) => json.len(),
            // As base64.
            Payload::Binary(bytes) => bytes.len().div_ceil(3) * 4,
        };
        // The members around it are less.
        payload + 512
    };
    let mut left = most;
    let mut fits = |message: &Message| {
        let rest = left.checked_sub(size(message));
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    let fit = if newest {
        messages.iter().rev().take_while(|message| fits(message)).count()
    } else {
        messages.iter().take_while(|message| fits(message)).count()
    };
    fit.max(1)
}

/// Reads a cursor of the channel.
pub(crate) fn parse(text: &str, channel: &Channel) -> Result<Cursor, BodyError> {
    Cursor::parse(text, channel).map_err(|e| error(Code::BadCursor, e.to_string()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidewire_protocol::{Event, Timestamp};

    use super::*;

    fn of(size: usize) -> Message {
        Message {
            event: Event::default(),
            payload: Payload::Binary(Bytes::from(vec![0; size])),
            message_id: None,
            timestamp: Timestamp::from_millis(0),
            from: None,
            exclude: None,
            stored: None,
        }
    }

    /// Each of them is held twice; whoever asked for more had them all at once.
    #[tokio::test]
    async fn so_many_pages_are_read_at_a_time() {
        let pages = Pages::new();
        let mut turns = Vec::new();
        for _ in 0..PAGES {
            turns.push(pages.turn().await.unwrap());
        }
        assert!(pages.turn().await.is_none(), "in vain, for a while");
        drop(turns.pop());
        assert!(pages.turn().await.is_some());
    }

    #[test]
    fn a_page_has_so_many_bytes_and_one_message_at_least() {
        let messages: Vec<_> = [30_000, 30, 3, 30_000].map(of).into();
        for (newest, most, expected) in [
            (false, 100, 1),
            (false, 41_100, 2),
            (false, 100_000, 4),
            (true, 100, 1),
            (true, 41_100, 2),
            (true, 42_000, 3),
            (true, 100_000, 4),
        ] {
            assert_eq!(how_many_fit(&messages, newest, most), expected, "{newest} {most}");
        }
    }
}
