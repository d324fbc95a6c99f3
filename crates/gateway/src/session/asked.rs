//! What a session asks the application before it acts: the part of it that waits for hooks.
//!
//! Nothing here keeps the session from reading on, but for the bound of what may be in flight.
//! Messages to one channel wait for each other, so that they stay in order; all else is asked at
//! the same time.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tidewire_auth::Identity;
use tidewire_hub::Start;
use tidewire_protocol::{
    Acked, BodyError, Channel, Code, FrameId, Hook, HookSubject, MessageId, Page, Payload,
    Publication, Reply,
};

use super::{Session, State};
use crate::asking::{reads, seen};
use crate::auth::refusal;

/// What waits. Boxed: only sessions that ask pay for it.
#[derive(Default)]
pub(super) struct Asked(OnceCell<Box<RefCell<Waiting>>>);

#[derive(Default)]
struct Waiting {
    /// Channels with messages that wait, each with a task that asks about them in turn.
    lines: Vec<(Channel, VecDeque<Message>)>,
    /// Subscriptions that are asked about, each with a number of its own.
    subscribing: Vec<(Channel, u64)>,
    next: u64,
}

/// A message that the application is to see, or that must not overtake one.
struct Message {
    id: Option<FrameId>,
    publication: Publication,
    who: Arc<Identity>,
    is_asked: bool,
}

impl Asked {
    fn with<T>(&self, f: impl FnOnce(&mut Waiting) -> T) -> T {
        f(&mut self.0.get_or_init(Box::default).borrow_mut())
    }

    fn find<T>(&self, f: impl FnOnce(&Waiting) -> T) -> Option<T> {
        self.0.get().map(|waiting| f(&waiting.borrow()))
    }

    /// How many subscriptions are asked about.
    pub(super) fn subscribing(&self) -> usize {
        self.find(|it| it.subscribing.len()).unwrap_or(0)
    }

    /// Whether a subscription to the channel is asked about.
    pub(super) fn is_subscribing(&self, channel: &Channel) -> bool {
        self.find(|it| it.subscribing.iter().any(|(of, _)| of == channel)).unwrap_or(false)
    }

    /// A subscription that is asked about is no longer wanted; false if there is none.
    pub(super) fn forget(&self, channel: &Channel) -> bool {
        self.is_subscribing(channel)
            && self.with(|it| {
                it.subscribing.retain(|(of, _)| of != channel);
                true
            })
    }

    fn has_line(&self, channel: &Channel) -> bool {
        self.find(|it| it.lines.iter().any(|(of, _)| of == channel)).unwrap_or(false)
    }

    fn next_message(&self, channel: &Channel) -> Option<Message> {
        self.with(|it| {
            let at = it.lines.iter().position(|(of, _)| of == channel)?;
            let message = it.lines[at].1.pop_front();
            if message.is_none() {
                it.lines.swap_remove(at);
            }
            message
        })
    }
}

/// One that is in flight, as long as this lives.
struct InFlight(Rc<Session>);

impl InFlight {
    fn new(session: &Rc<Session>) -> Self {
        session.one_more_in_flight();
        Self(session.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        // Its client may be read from again.
        self.0.outbox.wake();
    }
}

impl Session {
    fn one_more_in_flight(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// Takes a message that the application is to see, or that must not overtake one; gives back
    /// one that need not wait.
    pub(super) fn ask_about_message(
        self: &Rc<Self>,
        id: Option<FrameId>,
        channel: Channel,
        publication: Publication,
    ) -> Option<(Option<FrameId>, Channel, Publication)> {
        let who = self.login.identity();
        let is_asked = self.app.asks_publish(&who, &channel);
        let has_line = self.asked.has_line(&channel);
        if !is_asked && !has_line {
            return Some((id, channel, publication));
        }
        self.one_more_in_flight();
        let message = Message { id, publication, who, is_asked };
        self.asked.with(|it| match it.lines.iter_mut().find(|(of, _)| *of == channel) {
            Some((_, line)) => line.push_back(message),
            None => it.lines.push((channel.clone(), VecDeque::from([message]))),
        });
        if !has_line {
            let session = self.clone();
            // Ends when the line is empty; each message takes at most the hook's time-outs.
            tokio::task::spawn_local(async move {
                while let Some(message) = session.asked.next_message(&channel) {
                    // It was counted when it came.
                    let _in_flight = InFlight(session.clone());
                    session.decide(&channel, message).await;
                }
            });
        }
        None
    }

    /// Asks about one message and hands it to the broker.
    async fn decide(self: &Rc<Self>, channel: &Channel, message: Message) {
        let Message { id, mut publication, who, is_asked } = message;
        let mut result = None;
        if is_asked {
            let asking = self.app.ask_publish(&who, Some(self.id), channel, &mut publication);
            let answer = match asking {
                Ok(asking) => asking.await,
                Err(denied) => return self.refuse(id.as_ref(), denied.code, &denied.message),
            };
            match answer {
                Ok(answer) => (publication, result) = seen(publication, answer),
                Err(error) => {
                    let message_id = publication.message_id.as_ref();
                    return self.answer_error(id.as_ref(), &error, message_id);
                }
            }
        }
        self.hand_over(id, &who, channel.clone(), publication, result);
    }

    /// Asks about a subscription, and subscribes if the application lets it.
    pub(super) fn ask_about_subscription(
        self: &Rc<Self>,
        id: Option<FrameId>,
        channel: &Channel,
        start: Start,
    ) {
        let who = self.login.identity();
        let asking = self.app.hooks.subscribe(&who, Some(self.id), channel, reads(start));
        let number = self.asked.with(|it| {
            it.next += 1;
            it.subscribing.push((channel.clone(), it.next));
            it.next
        });
        let (session, channel) = (self.clone(), channel.clone());
        let in_flight = InFlight::new(self);
        // Ends with the application's answer, within the hook's time-outs.
        tokio::task::spawn_local(async move {
            let _in_flight = in_flight;
            let answer = asking.await;
            let wanted = session.asked.with(|it| {
                let at = it.subscribing.iter().position(|(_, of)| *of == number);
                at.map(|at| it.subscribing.swap_remove(at)).is_some()
            });
            if session.ended().is_some() {
                return;
            }
            if !wanted {
                return session.overtaken(id.as_ref());
            }
            // The login may have changed meanwhile.
            let may = session.app.may_start(&session.login.identity(), &channel, start);
            match answer.and(may.map_err(refusal)) {
                Ok(start) => session.subscribe(&channel, start, State::Asked(id)),
                Err(error) => session.answer_error(id.as_ref(), &error, None),
            }
        });
    }

    /// Asks whether a page of what the channel keeps may be read, where its client is not
    /// subscribed to it, and reads it.
    pub(super) fn ask_about_history(
        self: &Rc<Self>,
        id: Option<FrameId>,
        channel: Channel,
        page: Page,
    ) {
        let asking = self.app.ask_history(&self.login.identity(), Some(self.id), &channel);
        let (session, in_flight) = (self.clone(), InFlight::new(self));
        // Ends with the application's answer, within the hook's time-outs.
        tokio::task::spawn_local(async move {
            let _in_flight = in_flight;
            match asking.await {
                Ok(()) => session.history(id, channel, &page),
                Err(error) => session.answer_error(id.as_ref(), &error, None),
            }
        });
    }

    /// Asks the application for what it alone knows.
    pub(super) fn rpc(self: &Rc<Self>, id: Option<FrameId>, method: &str, payload: &Payload) {
        if !self.app.hooks.has(Hook::Rpc) {
            let message = "there is nobody to ask: hooks.rpc is not configured";
            return self.refuse(id.as_ref(), Code::NotFound, message);
        }
        let subject = HookSubject::Rpc { method, payload };
        let asking = self.app.hooks.ask(&self.login.identity(), Some(self.id), subject);
        let (session, in_flight) = (self.clone(), InFlight::new(self));
        // Ends with the application's answer, within the hook's time-outs.
        tokio::task::spawn_local(async move {
            let _in_flight = in_flight;
            match asking.await {
                Ok(answer) => {
                    let payload = answer.payload.as_deref().or(Some(b"null"));
                    let acked = Acked { payload, ..Acked::default() };
                    session.reply(&Reply::Ack { id: id.as_ref(), acked });
                }
                Err(error) => session.answer_error(id.as_ref(), &error, None),
            }
        });
    }

    /// Answers with what came of asking: a refusal is the client's error; an application that does
    /// not answer, or that others of the namespace are too fast, is not. A message that may be sent again is named.
    pub(super) fn answer_error(
        &self,
        id: Option<&FrameId>,
        error: &BodyError,
        message_id: Option<&MessageId>,
    ) {
        let BodyError { code, message } = error;
        if !matches!(code, Code::Unavailable | Code::Timeout | Code::TooFast) {
            return self.refuse(id, *code, message);
        }
        self.app.metrics.error(*code);
        let named = message_id.map(|it| format!("{message} (messageId {})", it.as_str()));
        let message = named.as_deref().unwrap_or(message);
        self.reply(&Reply::Error { id, code: *code, message, retry: Some(1_000) });
    }
}
