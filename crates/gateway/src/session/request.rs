//! What a client asks for over its WebSocket.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tidewire_broker::PublishError;
use tidewire_protocol::{
    Acked, BodyError, Channel, ClientFrame, Code, FrameError, FrameId, MessageId, Page,
    Publication, Reply, Request, Rewind,
};

use super::{End, Session, State};
use crate::metrics::Limit;
use crate::publish::{Done, Publishing};

impl Session {
    /// Acts on one frame of the client, of so many bytes, or refuses it.
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
                Request::History { channel, page } => self.history(id, channel, &page),
                Request::Unsubscribe { channel } => self.unsubscribe_from(id.as_ref(), &channel),
                Request::Publish { channel, publication, echo } => {
                    self.publish(id, channel, publication, echo);
                }
                Request::Ping => self.reply(&Reply::Pong { id: id.as_ref() }),
            },
            Err(FrameError { id, code, message }) => self.refuse(id.as_ref(), code, &message),
        }
    }

    /// Answers with an error that the client made, and counts it.
    pub(super) fn refuse(&self, id: Option<&FrameId>, code: Code, message: &str) {
        self.app.metrics.error(code);
        self.reply(&Reply::Error { id, code, message, retry: None });
        self.count_error();
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
        if held.iter().any(|held| held.subscription.channel == *channel) {
            drop(held);
            let message = format!("this session is subscribed to '{channel}' already");
            self.refuse(id.as_ref(), Code::AlreadySubscribed, &message);
        } else if held.len() >= most {
            drop(held);
            self.app.metrics.limited(Limit::SubscriptionsPerSession);
            let message = format!("at most {most} subscriptions are allowed in a session");
            self.refuse(id.as_ref(), Code::TooMany, &message);
        } else {
            drop(held);
            self.subscribe(channel, start, State::Asked(id));
        }
    }

    fn unsubscribe_from(&self, id: Option<&FrameId>, channel: &Channel) {
        let mut all = self.held.borrow_mut();
        let Some(at) = all.iter().position(|held| held.subscription.channel == *channel) else {
            drop(all);
            let message = format!("this session is not subscribed to '{channel}'");
            return self.refuse(id, Code::NotSubscribed, &message);
        };
        let held = all.swap_remove(at);
        drop(all);
        self.lane.unsubscribe(&held.subscription);
        match held.state {
            // Every frame is answered, also the one that this frame overtakes.
            State::Asked(asked) => self.reply(&Reply::Error {
                id: asked.as_ref(),
                code: Code::NotSubscribed,
                message: "unsubscribed before it was confirmed",
                retry: None,
            }),
            State::Undecided => self.decided(),
            State::Confirmed(..) | State::Active => {}
        }
        self.reply(&Reply::Ack { id, acked: Acked::default() });
    }

    fn publish(
        self: &Rc<Self>,
        id: Option<FrameId>,
        channel: Channel,
        mut publication: Publication,
        echo: bool,
    ) {
        publication.exclude = (!echo).then_some(self.id);
        let who = self.login.identity();
        let mut publishing = match self.app.publish(&who, channel, publication, Some(self.id)) {
            Ok(publishing) => publishing,
            Err(denied) => return self.refuse(id.as_ref(), denied.code, &denied.message),
        };
        // The embedded broker answers at once, and no task is needed.
        match publishing.poll(&self.app, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => {
                self.published(id.as_ref(), &publishing.message_id, outcome);
            }
            Poll::Pending => self.await_receipt(id, publishing),
        }
    }

    fn history(self: &Rc<Self>, id: Option<FrameId>, channel: Channel, page: &Page) {
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
                Err(error) => {
                    let BodyError { code, message } = &error;
                    let (id, code) = (id.as_ref(), *code);
                    session.reply(&Reply::Error { id, code, message, retry: Some(1_000) });
                }
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
            session.published(id.as_ref(), &publishing.message_id, outcome);
            session.outbox.wake();
        });
    }

    fn published(
        &self,
        id: Option<&FrameId>,
        message_id: &MessageId,
        outcome: Result<Done, PublishError>,
    ) {
        match outcome {
            Ok(Done { cursor, duplicate }) => {
                let message_id = Some(message_id);
                let acked = Acked { message_id, cursor, duplicate, ..Acked::default() };
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
                self.app.metrics.error(error.code());
                // Sending it again with this id is safe, so the error names it.
                let message = format!("{error} (messageId {})", message_id.as_str());
                let code = error.code();
                self.reply(&Reply::Error { id, code, message: &message, retry: Some(1_000) });
            }
        }
    }
}
