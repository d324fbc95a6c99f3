//! What the lane tells a session, and how its client hears of it.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tidewire_hub::{Beat, Begin, Encoded, Form, Gap, Outbox, Transport};
use tidewire_protocol::{Acked, Channel, Code, Cursor, Reply, SessionId, sse as events};

use super::{Confirmed, End, Session, State};
use crate::metrics::Reason;
use crate::users::Told;

impl tidewire_hub::Session for Session {
    fn id(&self) -> SessionId {
        self.id
    }

    fn form(&self) -> Form {
        self.form
    }

    fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn subscribed(&self, channel: &Channel, begin: Option<&Begin>) {
        let (cursor, recovered) = begin.map_or((None, None), |it| (Some(it.place), it.recovered));
        let gap = begin.and_then(|begin| begin.gap);
        let mut all = self.held.borrow_mut();
        let Some(held) = all.iter_mut().find(|held| held.subscription.channel == *channel) else {
            return;
        };
        match std::mem::replace(&mut held.state, State::Active) {
            State::Undecided => {
                held.state = State::Confirmed(Box::new(Confirmed { cursor, recovered, gap }));
                drop(all);
                self.decided();
            }
            State::Asked(id) => {
                drop(all);
                let acked = Acked { cursor, recovered, ..Acked::default() };
                self.reply(&Reply::Ack { id: id.as_ref(), acked });
                self.tell_gap(channel, gap);
            }
            State::Own => {
                drop(all);
                // So the client can go on from there later.
                if let Some(cursor) = cursor {
                    self.reply(&Reply::Position { channel, cursor });
                }
            }
            State::Confirmed(..) | State::Active => {}
        }
    }

    fn refused(&self, channel: &Channel, code: Code) {
        let mut all = self.held.borrow_mut();
        let Some(at) = all.iter().position(|held| held.subscription.channel == *channel) else {
            return;
        };
        let held = all.swap_remove(at);
        drop(all);
        self.app.metrics.error(code);
        match held.state {
            State::Undecided => {
                self.denied.borrow_mut().push((channel.clone(), code));
                self.decided();
            }
            State::Asked(id) => {
                let (message, retry) = match code {
                    Code::Forbidden | Code::Unauthorized => ("not granted any more", None),
                    _ => ("the broker has not confirmed the subscription; try again", Some(1_000)),
                };
                self.reply(&Reply::Error { id: id.as_ref(), code, message, retry });
            }
            State::Own | State::Confirmed(..) | State::Active => {
                self.reply(&Reply::Unsubscribed { channel, code });
            }
        }
    }

    fn gap(&self, channel: &Channel, gap: Option<&Gap>) {
        self.tell_gap(channel, Some(gap.copied().unwrap_or_default()));
    }

    fn takes_backlog(&self) -> bool {
        // Ids of an event stream name all its places, which are known once all are decided.
        self.undecided.get() == 0
    }

    fn is_behind(&self, channel: &Channel, place: Cursor) {
        self.behind.borrow_mut().push((channel.clone(), place));
        self.outbox.wake();
    }

    fn tracks(&self) -> bool {
        match self.form {
            Form::Sse(_) => !self.places.borrow().is_empty(),
            Form::Json => true,
            Form::WebSocket(_) | Form::SseWithId(_) => false,
        }
    }

    fn before(&self, message: &Encoded) -> Option<BytesMut> {
        let place = message.cursor()?;
        self.moved_to(Some(place));
        let line = self.id_line();
        (!line.is_empty()).then(|| BytesMut::from(&line[..]))
    }

    fn passed_over(&self, message: &Encoded) {
        let Some(cursor) = message.cursor() else { return };
        self.moved_to(Some(cursor));
        match self.form.transport() {
            Transport::WebSocket => {
                self.reply(&Reply::Position { channel: &message.channel, cursor });
            }
            // An id alone moves the client's last id and fires nothing (HTML standard, 9.2.6).
            Transport::Sse => {
                let mut line = self.id_line();
                line.push(b'\n');
                self.outbox.send(&line.into(), 0);
            }
            Transport::Poll => {}
        }
    }

    fn beat(&self, beat: Beat) {
        match self.form.transport() {
            Transport::WebSocket => self.beat_websocket(beat),
            Transport::Sse => self.beat_sse(beat),
            Transport::Poll => {}
        }
    }

    fn reconsider(self: Rc<Self>) {
        match self.login.told() {
            Told::Nothing => {}
            Told::Asked => self.find_client(),
            Told::Over { is_final: true } => self.finish(End::TOO_MANY),
            Told::Over { is_final: false } => self.finish(End::CROWDED),
        }
    }

    fn shutdown(&self, reconnect: Duration) {
        let millis = u64::try_from(reconnect.as_millis()).unwrap_or(u64::MAX);
        self.reply(&Reply::Shutdown { reconnect: millis });
        if self.form.transport() == Transport::Sse {
            // The stream ends when the client is due; it then comes back at once, but not all in
            // the same instant.
            let mut out = Vec::new();
            events::write_retry(fastrand::u64(50..500), &mut out);
            self.outbox.send(&out.into(), 0);
        }
    }

    fn end(&self) {
        self.finish(End::SHUTDOWN);
        // A stream that its client does not read is not polled, and would hold up the node's end.
        if self.outbox.socket().is_none() {
            self.leave(Reason::Shutdown);
        }
    }
}

impl Session {
    /// Tells of a gap, if there is one.
    pub(super) fn tell_gap(&self, channel: &Channel, gap: Option<Gap>) {
        let Some(gap) = gap else { return };
        self.moved_to(gap.cursor);
        if self.form == Form::Json {
            self.note_gap(channel, gap);
            return self.outbox.wake();
        }
        let ids = matches!(self.form, Form::Sse(_)) && gap.cursor.is_some();
        self.outbox.send_gap(channel, gap, ids, |gap| {
            let Gap { after, cursor } = *gap;
            let mut event = if cursor.is_some() { self.id_line() } else { Vec::new() };
            event.extend_from_slice(&self.encode(&Reply::Gap { channel, after, cursor }));
            event.into()
        });
    }

    /// Notes a gap for a poll's answer; two that adjoin are one.
    fn note_gap(&self, channel: &Channel, gap: Gap) {
        let mut gaps = self.gaps.borrow_mut();
        let last = gaps.iter_mut().rfind(|(of, _)| of == channel);
        match last.filter(|(_, last)| last.cursor.is_some() && last.cursor == gap.after) {
            Some((_, last)) => last.cursor = gap.cursor,
            None => gaps.push((channel.clone(), gap)),
        }
    }
}
