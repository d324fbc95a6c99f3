//! A publish, whoever asked for it: the one way to the broker.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tidewire_auth::{Denied, Identity};
use tidewire_broker::{PublishError, Published, Receipt};
use tidewire_protocol::{
    Channel, Cursor, Message, MessageId, Publication, Sender, SessionId, Timestamp,
};

use crate::app::App;
use crate::auth::publisher;
use crate::metrics::Source;

/// A publish that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// Its place, on a stored channel.
    pub(crate) cursor: Option<Cursor>,
    /// It was published before.
    pub(crate) duplicate: bool,
}

/// A publish that is on its way.
pub(crate) struct Publishing {
    /// The message's identity: the publisher's own, or a new one.
    pub(crate) message_id: MessageId,
    /// What the application says about it, one JSON value.
    pub(crate) result: Option<Bytes>,
    channel: Channel,
    namespace: usize,
    source: Source,
    began: Instant,
    receipt: Receipt,
}

impl App {
    /// Hands a message to the broker, if who publishes it may. Its place among the caller's
    /// messages is taken when this returns.
    pub(crate) fn publish(
        &self,
        who: &Identity,
        channel: Channel,
        publication: Publication,
        sender: Option<SessionId>,
    ) -> Result<Publishing, Denied> {
        self.auth.policy.may_publish(who, &channel)?;
        let (event, bytes) = (publication.event.as_str(), publication.payload.len());
        self.auth.policy.may_carry(&channel, event, bytes)?;
        let Publication { event, payload, message_id, exclude } = publication;
        let message_id = message_id.unwrap_or_else(MessageId::generate);
        let message = Message {
            event,
            payload,
            message_id: Some(message_id.clone()),
            timestamp: Timestamp::now(),
            from: from(who, sender),
            exclude,
            stored: None,
        };
        Ok(Publishing {
            message_id,
            result: None,
            namespace: self.settings.namespaces.index(&channel),
            source: if sender.is_some() { Source::WebSocket } else { Source::Http },
            began: Instant::now(),
            receipt: self.broker.publish(channel.clone(), message, publisher(who)),
            channel,
        })
    }
}

/// Who a message is from, for its subscribers: a session, a user, or both. A backend is nobody to them.
fn from(who: &Identity, session: Option<SessionId>) -> Option<Sender> {
    let user = who.user();
    (user.is_some() || session.is_some()).then(|| Sender { user: user.map(Into::into), session })
}

impl Publishing {
    /// With what the application says about it.
    pub(crate) fn with_result(mut self, result: Option<Bytes>) -> Self {
        self.result = result;
        self
    }

    /// Polls the broker's answer.
    pub(crate) fn poll(
        &mut self,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Done, PublishError>> {
        self.receipt.as_mut().poll(cx).map(|outcome| {
            if outcome.is_ok() {
                app.metrics.published(self.source, self.namespace, self.began.elapsed());
            }
            let done = |published: Published| Done {
                cursor: published.place.map(|(life, id)| Cursor::new(&self.channel, life, id)),
                duplicate: published.duplicate,
            };
            outcome.map(done).map_err(|error| self.as_told(app, error))
        })
    }

    /// The error for the publisher: why the broker is not there is the operators' business.
    fn as_told(&self, app: &App, error: PublishError) -> PublishError {
        let PublishError::Unavailable(why) = error else { return error };
        if app.not_published.is_due() {
            tracing::warn!(channel = %self.channel, why, "not published; the next such line is a minute away");
        }
        PublishError::Unavailable("try again".to_owned())
    }

    /// Waits for the broker's answer.
    pub(crate) async fn done(&mut self, app: &App) -> Result<Done, PublishError> {
        std::future::poll_fn(|cx| self.poll(app, cx)).await
    }
}
