//! The channels that a login brings: those of the address and the user's own, as far as they are granted.

use std::rc::Rc;

use tidewire_auth::Identity;
use tidewire_hub::{Session as _, Start};
use tidewire_protocol::{Channel, Code, Reply};

use super::{Session, State};

/// What a session that logs in begins with.
pub(super) struct First {
    pub(super) channels: Vec<(Channel, Start)>,
    pub(super) denied: Vec<(Channel, Code)>,
}

impl Session {
    pub(super) async fn ask_about_first(&self, identity: &Identity, first: First) -> First {
        let First { channels, mut denied } = first;
        let asking = self.app.ask_subscribe(identity, Some(self.id), channels);
        let (channels, refused) = asking.await;
        denied.extend(refused.into_iter().map(|(channel, error)| (channel, error.code)));
        First { channels, denied }
    }

    /// The channels of the address and the user's own, as far as the rules allow them.
    pub(super) fn first_channels(
        &self,
        identity: &Identity,
        mut channels: Vec<(Channel, Start)>,
    ) -> First {
        let named: Vec<_> = channels.iter().map(|(channel, _)| channel).collect();
        let room = self.app.settings.subscriptions_per_session.saturating_sub(named.len());
        let own = self.app.auth.own_channels(identity, &named);
        channels.extend(own.into_iter().take(room).map(|channel| (channel, Start::Present)));
        let mut first = First { channels: Vec::new(), denied: Vec::new() };
        for (channel, start) in channels {
            match self.app.may_start(identity, &channel, start) {
                Ok(start) => first.channels.push((channel, start)),
                Err(denied) => first.denied.push((channel, denied.code)),
            }
        }
        first
    }

    /// The user's own channels, as far as there is room for them, that the session does not have.
    pub(super) fn own_channels(&self, identity: &Identity) -> First {
        let held = self.held.borrow();
        let named: Vec<_> = held.iter().map(|held| &held.subscription.channel).collect();
        let most = self.app.settings.subscriptions_per_session;
        let room = most.saturating_sub(held.len() + self.asked.subscribing());
        let own = self.app.auth.own_channels(identity, &named).into_iter();
        let own = own.filter(|channel| !self.asked.is_subscribing(channel)).take(room);
        let mut first = First { channels: Vec::new(), denied: Vec::new() };
        for channel in own {
            match self.app.may_start(identity, &channel, Start::Present) {
                Ok(start) => first.channels.push((channel, start)),
                Err(denied) => first.denied.push((channel, denied.code)),
            }
        }
        first
    }

    /// The login of a session that had its welcome: the user's own channels are subscribed besides.
    pub(super) fn follow(self: &Rc<Self>, first: First) {
        for (channel, start) in first.channels {
            self.subscribe(&channel, start, State::Own);
        }
        for (channel, code) in first.denied {
            self.app.metrics.error(code);
            self.reply(&Reply::Unsubscribed { channel: &channel, code });
        }
    }

    /// The first login: the channels are subscribed, and the welcome follows.
    pub(super) fn begin(self: &Rc<Self>, first: First) {
        for (channel, start) in first.channels {
            self.undecided.set(self.undecided.get() + 1);
            self.subscribe(&channel, start, State::Undecided);
        }
        for (channel, code) in first.denied {
            self.app.metrics.error(code);
            self.denied.borrow_mut().push((channel, code));
        }
        // The login itself was one thing to be decided.
        self.decided();
    }

    /// After a refresh that grants less.
    pub(super) fn drop_what_is_not_granted(&self) {
        let identity = self.login.identity();
        let denied: Vec<_> = self
            .held
            .borrow()
            .iter()
            .filter_map(|held| {
                let channel = &held.subscription.channel;
                let denied = self.app.auth.policy.may_subscribe(&identity, channel).err()?;
                Some((channel.clone(), denied.code))
            })
            .collect();
        for (channel, code) in denied {
            let held = self.held.borrow();
            if let Some(held) = held.iter().find(|held| held.subscription.channel == channel) {
                self.lane.unsubscribe(&held.subscription);
            }
            drop(held);
            self.refused(&channel, code);
        }
    }
}
