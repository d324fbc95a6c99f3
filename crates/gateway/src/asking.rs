//! What the application is asked before a subscription or a message counts: who has said yes to it
//! so far are the namespaces' rules.

use std::future::Future;

use bytes::Bytes;
use futures_util::future::join_all;
use tidewire_auth::{Denied, Identity};
use tidewire_hub::Start;
use tidewire_protocol::{
    BodyError, Channel, Hook, HookAnswer, HookSubject, MessageId, Payload, Publication, SessionId,
};

use crate::app::App;

/// Channels that may be subscribed, and those that may not.
pub(crate) type Decided = (Vec<(Channel, Start)>, Vec<(Channel, BodyError)>);

/// A message that the application has seen, as it is to be published, and what its publisher is
/// to be told.
pub(crate) type Seen = (Publication, Option<Bytes>);

impl App {
    /// Whether the application decides about their subscriptions to the channel. Nobody decides
    /// about one's own channel but the rule that makes it.
    pub(crate) fn asks_subscribe(&self, who: &Identity, channel: &Channel) -> bool {
        let namespace = self.settings.namespaces.index(channel);
        self.hooks.decides(Hook::Subscribe, who, namespace)
            && self.auth.policy.personal_channel(who).as_ref() != Some(channel)
    }

    /// Whether the application decides about what they publish to the channel.
    pub(crate) fn asks_publish(&self, who: &Identity, channel: &Channel) -> bool {
        self.hooks.decides(Hook::Publish, who, self.settings.namespaces.index(channel))
    }

    /// Asks about each of these channels, all at the same time, and sorts them.
    pub(crate) fn ask_subscribe(
        &self,
        who: &Identity,
        session: Option<SessionId>,
        channels: Vec<(Channel, Start)>,
    ) -> impl Future<Output = Decided> + Send + use<> {
        let ask = |(channel, start): (Channel, Start)| {
            let asking = self
                .asks_subscribe(who, &channel)
                .then(|| self.hooks.subscribe(who, session, &channel, reads(start)));
            async move {
                let said = match asking {
                    Some(asking) => asking.await,
                    None => Ok(()),
                };
                (channel, start, said)
            }
        };
        let all = join_all(channels.into_iter().map(ask));
        async move {
            let mut decided = Decided::default();
            for (channel, start, said) in all.await {
                match said {
                    Ok(()) => decided.0.push((channel, start)),
                    Err(error) => decided.1.push((channel, error)),
                }
            }
            decided
        }
    }

    /// Asks about a page of what the channel keeps.
    pub(crate) fn ask_history(
        &self,
        who: &Identity,
        session: Option<SessionId>,
        channel: &Channel,
    ) -> impl Future<Output = Result<(), BodyError>> + Send + use<> {
        let asking = self
            .asks_subscribe(who, channel)
            .then(|| self.hooks.subscribe(who, session, channel, true));
        async move {
            match asking {
                Some(asking) => asking.await,
                None => Ok(()),
            }
        }
    }

    /// Asks about a message that they may publish, by the rules. It has its messageId from here
    /// on, given or not.
    pub(crate) fn ask_publish(
        &self,
        who: &Identity,
        session: Option<SessionId>,
        channel: &Channel,
        publication: &mut Publication,
    ) -> Result<impl Future<Output = Result<HookAnswer, BodyError>> + Send + use<>, Denied> {
        self.auth.policy.may_publish(who, channel)?;
        let Publication { event, payload, message_id, .. } = publication;
        self.auth.policy.may_carry(channel, event.as_str(), payload.len())?;
        let message_id = message_id.get_or_insert_with(MessageId::generate);
        let subject = HookSubject::Publish { channel, event, payload, message_id };
        Ok(self.hooks.ask(who, session, subject))
    }
}

/// The message with what the application has made of it.
pub(crate) fn seen(mut publication: Publication, answer: HookAnswer) -> Seen {
    if let Some(payload) = answer.payload {
        publication.payload = Payload::Json(payload);
    }
    (publication, answer.result)
}

/// Whether who begins there reads what was published before.
pub(crate) const fn reads(start: Start) -> bool {
    matches!(start, Start::Last(_) | Start::Since(_))
}
