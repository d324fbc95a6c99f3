//! A poll: a session that lasts for one answer.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tidewire_protocol::Channel;

use super::{End, Seat, Session};
use crate::http::Problem;

/// What a poll is answered with.
pub(crate) enum Polled {
    /// A JSON body.
    Body(Vec<u8>),
    /// Not all channels could be had.
    Refused(Problem),
}

impl Session {
    /// Waits until there is something to tell, or for so long; then it is over.
    pub(crate) async fn collect(self: Rc<Self>, wait: Duration) -> Polled {
        let _seat = Seat(&self);
        let mut messages = Vec::new();
        poll_fn(|cx| self.poll_decided(cx)).await;
        if let Some((channel, code)) = self.denied.borrow().first() {
            self.finish(End::LEFT);
            let detail = format!("'{channel}' cannot be read now; try again");
            return Polled::Refused(Problem::new(*code, detail));
        }
        // Out of time, it is answered with nothing but its places.
        let _ = tokio::time::timeout(wait, poll_fn(|cx| self.poll_told(cx, &mut messages))).await;
        self.finish(End::LEFT);
        let body = self.answer(&messages);
        self.leave(End::LEFT.reason);
        Polled::Body(body)
    }

    /// Ready once every channel is subscribed or refused.
    fn poll_decided(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outbox.register(cx);
        if self.undecided.get() == 0 || self.ended().is_some() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Takes what there is; ready once that is something.
    fn poll_told(&self, cx: &mut Context<'_>, messages: &mut Vec<Bytes>) -> Poll<()> {
        while let Poll::Ready(Some(message)) = self.outbox.poll_next(cx) {
            messages.push(message);
        }
        if messages.is_empty() {
            self.catch_up();
        }
        let told = !messages.is_empty() || !self.gaps.borrow().is_empty();
        if told || self.ended().is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn answer(&self, messages: &[Bytes]) -> Vec<u8> {
        let mut body = br#"{"messages":["#.to_vec();
        for (n, message) in messages.iter().enumerate() {
            if n > 0 {
                body.push(b',');
            }
            body.extend_from_slice(message);
        }
        body.push(b']');
        let gaps: Vec<_> = self.gaps.borrow().iter().map(gap_json).collect();
        let mut rest = serde_json::json!({ "cursor": self.places_text() });
        if !gaps.is_empty() {
            rest["gaps"] = gaps.into();
        }
        if !self.behind.borrow().is_empty() {
            rest["more"] = true.into();
        }
        // Both are objects: the second's members follow the first's.
        body.push(b',');
        body.extend_from_slice(&rest.to_string().as_bytes()[1..]);
        body
    }

    /// One channel's place as a cursor, several as one token.
    fn places_text(&self) -> String {
        let held = self.held.borrow();
        let places = self.places.borrow();
        match &held[..] {
            [one] => places.get(&one.subscription.channel).map(|cursor| cursor.to_string()),
            _ => None,
        }
        .unwrap_or_else(|| places.to_string())
    }
}

fn gap_json((channel, gap): &(Channel, tidewire_hub::Gap)) -> serde_json::Value {
    let mut json = serde_json::json!({ "channel": channel.as_str() });
    if let Some(after) = gap.after {
        json["after"] = after.to_string().into();
    }
    if let Some(cursor) = gap.cursor {
        json["cursor"] = cursor.to_string().into();
    }
    json
}
