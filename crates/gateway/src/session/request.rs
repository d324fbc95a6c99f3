//! What a client asks for over its WebSocket.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tidewire_auth::Identity;
use tidewire_broker::PublishError;
use tidewire_protocol::{
    Acked, BodyError, Channel, ClientFrame, Code, FrameError, FrameId, Page, Publication, Reply,
    Request, Rewind,
};

use super::{End, Session, State, errors};
use crate::auth::refusal;
use crate::metrics::Limit;
use crate::publish::{Done, Publishing};

impl Session {
    /// Acts on one frame of the client, of so many bytes that are not paid for yet, or refuses it.
    pub(super) fn handle(self: &Rc<Self>, frame: Result<ClientFrame, FrameError>, bytes: usize) {
        let id = match &frame {
            Ok(frame) => frame.id.as_ref(),
            Err(error) => error.id.as_ref(),
        };
        if !self.keeps_pace(id, bytes) {
            return;
        }
        match frame {
            Ok(ClientFrame { id, request }) if self.login.is_pending() => match request {
                Request::Auth { token } => self.auth(id, token),
                _ => self.must_log_in(id.as_ref()),
            },
            Ok(ClientFrame { id, request }) => match request {
                Request::Auth { token } => self.auth(id, token),
                Request::Subscribe { channel, cursor, rewind } => {
                    self.subscribe_to(id, &channel, cursor.as_deref(), rewind);
                }
                Request::History { channel, page } => self.read_history(id, channel, page),
                Request::Rpc { method, payload } => self.rpc(id, &method, &payload),
                Request::Unsubscribe { channel } => self.unsubscribe_from(id.as_ref(), &channel),
                Request::Publish { channel, publication, echo } => {
                    self.publish(id, channel, publication, echo);
                }
                Request::Ping => self.reply(&Reply::Pong { id: id.as_ref() }),
            },
            Err(FrameError { id, code, message }) => self.refuse(id.as_ref(), code, &message),
        }
    }

    /// Answers with an error, and counts it if the client made it.
    pub(super) fn refuse(&self, id: Option<&FrameId>, code: Code, message: &str) {
        self.app.metrics.error(code);
        self.reply(&Reply::Error { id, code, message, retry: None });
        if errors::is_the_clients(code) {
            self.count_error();
        }
    }

    /// The client made an error; too many of them end its session.
    pub(super) fn count_error(&self) {
        let now = self.app.seconds();
        let errors = self.errors.get().one_more(now);
        self.errors.set(errors);
        if errors.are_too_many(now) {
            self.finish(End::ABUSE);
        }
    }

    fn subscribe_to(
        self: &Rc<Self>,
        id: Option<FrameId>,
        channel: &Channel,
        cursor: Option<&str>,
        rewind: Option<Rewind>,
    ) {
        let start = match self.app.start_at(channel, cursor, rewind) {
            Ok(start) => start,
            Err(error) => return self.refuse(id.as_ref(), error.code, &error.message),
        };
        let start = match self.app.may_start(&self.login.identity(), channel, start) {
            Ok(start) => start,
            Err(denied) => return self.refuse(id.as_ref(), denied.code, &denied.message),
        };
        let held = self.held.borrow();
        let most = self.app.settings.subscriptions_per_session;
        let is_asked = self.asked.is_subscribing(channel);
        if is_asked || held.iter().any(|held| held.subscription.channel == *channel) {
            drop(held);
            let message = format!("this session is subscribed to '{channel}' already");
            self.refuse(id.as_ref(), Code::AlreadySubscribed, &message);
        } else if held.len() + self.asked.subscribing() >= most {
            drop(held);
            self.app.metrics.limited(Limit::SubscriptionsPerSession);
            let message = format!("at most {most} subscriptions are allowed in a session");
            self.refuse(id.as_ref(), Code::TooMany, &message);
        } else {
            drop(held);
            if self.app.asks_subscribe(&self.login.identity(), channel) {
                self.ask_about_subscription(id, channel, start);
            } else {
                self.subscribe(channel, start, State::Asked(id));
            }
        }
    }

    fn unsubscribe_from(&self, id: Option<&FrameId>, channel: &Channel) {
        let mut all = self.held.borrow_mut();
        let Some(at) = all.iter().position(|held| held.subscription.channel == *channel) else {
            drop(all);
            if self.asked.forget(channel) {
                return self.reply(&Reply::Ack { id, acked: Acked::default() });
            }
            let message = format!("this session is not subscribed to '{channel}'");
            return self.refuse(id, Code::NotSubscribed, &message);
        };
        let held = all.swap_remove(at);
        drop(all);
        self.lane.unsubscribe(&held.subscription);
        match held.state {
            // Every frame is answered, also the one that this frame overtakes.
            State::Asked(asked) => self.overtaken(asked.as_ref()),
            State::Undecided => self.decided(),
            State::Own | State::Confirmed(..) | State::Active => {}
        }
        self.reply(&Reply::Ack { id, acked: Acked::default() });
    }

    /// Tells of a subscription that was asked for and taken back before it was there.
    pub(super) fn overtaken(&self, id: Option<&FrameId>) {
        let (code, message) = (Code::NotSubscribed, "unsubscribed before it was confirmed");
        self.reply(&Reply::Error { id, code, message, retry: None });
    }

    fn publish(
        self: &Rc<Self>,
        id: Option<FrameId>,
        channel: Channel,
        mut publication: Publication,
        echo: bool,
    ) {
        publication.exclude = (!echo).then_some(self.id);
        if let Err(denied) = self.app.may_publish_now(&self.login.identity(), &channel) {
            return self.answer_error(id.as_ref(), &refusal(denied), None);
        }
        let free = self.ask_about_message(id, channel, publication);
        if let Some((id, channel, publication)) = free {
            self.hand_over(id, &self.login.identity(), channel, publication, None);
        }
    }

    /// Hands a message to the broker; its publisher is told `result`, too.
    pub(super) fn hand_over(
        self: &Rc<Self>,
        id: Option<FrameId>,
        who: &Identity,
        channel: Channel,
        publication: Publication,
        result: Option<Bytes>,
    ) {
        let mut publishing = match self.app.publish(who, channel, publication, Some(self.id)) {
            Ok(publishing) => publishing.with_result(result),
            Err(denied) => return self.refuse(id.as_ref(), denied.code, &denied.message),
        };
        // The embedded broker answers at once, and no task is needed.
        match publishing.poll(&self.app, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => self.published(id.as_ref(), &publishing, outcome),
            Poll::Pending => self.await_receipt(id, publishing),
        }
    }

    fn read_history(self: &Rc<Self>, id: Option<FrameId>, channel: Channel, page: Page) {
        // The application has decided about what its client is subscribed to.
        let held = self.held.borrow();
        let is_held = held.iter().any(|held| held.subscription.channel == channel);
        drop(held);
        if is_held || !self.app.asks_subscribe(&self.login.identity(), &channel) {
            return self.history(id, channel, &page);
        }
        match self.app.auth.policy.may_read(&self.login.identity(), &channel) {
            Ok(()) => self.ask_about_history(id, channel, page),
            Err(denied) => self.refuse(id.as_ref(), denied.code, &denied.message),
        }
    }

    pub(super) fn history(self: &Rc<Self>, id: Option<FrameId>, channel: Channel, page: &Page) {
        let reading = match self.app.history(&self.login.identity(), &channel, page) {
            Ok(reading) => reading,
            Err(error) => return self.refuse(id.as_ref(), error.code, &error.message),
        };
        self.in_flight.set(self.in_flight.get() + 1);
        let session = self.clone();
        // Ends with the broker's answer, within its time-out.
        tokio::task::spawn_local(async move {
            let answer = reading.await;
            session.in_flight.set(session.in_flight.get() - 1);
            match answer {
                Ok(part) => {
                    let page = Some((&channel, &part.messages[..], part.next));
                    let acked = Acked { page, ..Acked::default() };
                    session.reply(&Reply::Ack { id: id.as_ref(), acked });
                }
                Err(error) => session.answer_error(id.as_ref(), &error, None),
            }
            session.outbox.wake();
        });
    }

    fn await_receipt(self: &Rc<Self>, id: Option<FrameId>, mut publishing: Publishing) {
        self.in_flight.set(self.in_flight.get() + 1);
        let session = self.clone();
        // Ends with the broker's answer, within the publish time-out.
        tokio::task::spawn_local(async move {
            let outcome = publishing.done(&session.app).await;
            session.in_flight.set(session.in_flight.get() - 1);
            session.published(id.as_ref(), &publishing, outcome);
            session.outbox.wake();
        });
    }

    fn published(
        &self,
        id: Option<&FrameId>,
        publishing: &Publishing,
        outcome: Result<Done, PublishError>,
    ) {
        let message_id = &publishing.message_id;
        match outcome {
            Ok(Done { cursor, duplicate }) => {
                let (message_id, result) = (Some(message_id), publishing.result.as_deref());
                let acked = Acked { message_id, cursor, duplicate, result, ..Acked::default() };
                self.reply(&Reply::Ack { id, acked });
            }
            // Sending it again as it is helps nobody.
            Err(
                error @ (PublishError::Conflict
                | PublishError::TooLarge(_)
                | PublishError::Invalid(_)),
            ) => {
                self.refuse(id, error.code(), &error.to_string());
            }
            Err(error) => {
                // Sending it again with this id is safe, so the error names it.
                let error = BodyError { code: error.code(), message: error.to_string() };
                self.answer_error(id, &error, Some(message_id));
            }
        }
    }
}
