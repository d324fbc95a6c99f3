//! Places and pages: what a client says about the past of a channel, checked, and read.

use std::future::Future;

use tidewire_auth::{Denied, Identity};
use tidewire_broker::Query;
use tidewire_hub::Start;
use tidewire_protocol::{BodyError, Channel, Code, Cursor, Message, Page, Rewind};

use crate::app::App;
use crate::auth::refusal;

/// A part of a channel's history.
pub(crate) struct Part {
    /// Oldest first.
    pub(crate) messages: Vec<Message>,
    /// Where the next part in the same direction begins, if there may be one.
    pub(crate) next: Option<Cursor>,
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
        &self,
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
        // One more than asked for shows whether there is more.
        let query = Query { after, before, limit: limit + 1, newest };
        let (reading, channel) = (self.broker.read(channel, query), channel.clone());
        Ok(async move {
            let reading = reading.await.map_err(|e| error(Code::Unavailable, e.to_string()))?;
            let mut messages = reading.entries;
            let more = messages.len() > limit;
            if more {
                if newest {
                    messages.remove(0);
                } else {
                    messages.pop();
                }
            }
            let edge = if newest { messages.first() } else { messages.last() };
            let next = edge.filter(|_| more).and_then(|message| message.cursor(&channel));
            Ok(Part { messages, next })
        })
    }
}

/// Reads a cursor of the channel.
pub(crate) fn parse(text: &str, channel: &Channel) -> Result<Cursor, BodyError> {
    Cursor::parse(text, channel).map_err(|e| error(Code::BadCursor, e.to_string()))
}
