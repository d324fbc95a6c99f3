//! What the node wished of a link since the link last looked.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidewire_protocol::Channel;
use tokio::sync::Notify;

/// The last wish about a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The channel is wanted.
    pub(crate) wanted: bool,
    /// It was given up in between (or is now): whoever wants it now is new.
    pub(crate) dropped: bool,
}

/// Wishes by channel; bounded by the number of channels. Written under the caller's lock, so it
/// only notes.
#[derive(Default)]
pub(crate) struct Wishes {
    noted: Mutex<HashMap<Channel, Wish>>,
    change: Notify,
}

impl Wishes {
    pub(crate) fn note(&self, channel: &Channel, wanted: bool) {
        let mut noted = self.noted.lock();
        let wish = noted.entry(channel.clone()).or_insert(Wish { wanted, dropped: false });
        wish.wanted = wanted;
        wish.dropped |= !wanted;
        drop(noted);
        self.change.notify_one();
    }

    /// Waits until there may be something. Can be cancelled without loss.
    pub(crate) async fn changed(&self) {
        self.change.notified().await;
    }

    pub(crate) fn take(&self) -> HashMap<Channel, Wish> {
        std::mem::take(&mut *self.noted.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_coalesce() {
        let channel = Channel::new("a").unwrap();
        let wishes = Wishes::default();
        let taken = |steps: &[bool]| {
            steps.iter().for_each(|&wanted| wishes.note(&channel, wanted));
            wishes.take().remove(&channel)
        };
        assert_eq!(taken(&[]), None);
        assert_eq!(taken(&[true]), Some(Wish { wanted: true, dropped: false }));
        assert_eq!(taken(&[true, false]), Some(Wish { wanted: false, dropped: true }));
        assert_eq!(taken(&[false, true]), Some(Wish { wanted: true, dropped: true }));
    }
}
