//! What the node wished of a link since the link last looked.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidewire_protocol::Channel;
use tokio::sync::Notify;

/// Wishes by channel; bounded by the number of channels. Written under the caller's lock, so it
/// only notes.
#[derive(Default)]
pub(crate) struct Wishes {
    noted: Mutex<HashMap<Channel, bool>>,
    change: Notify,
}

impl Wishes {
    pub(crate) fn note(&self, channel: &Channel, wanted: bool) {
        self.noted.lock().insert(channel.clone(), wanted);
        self.change.notify_one();
    }

    /// Waits until there may be something. Can be cancelled without loss.
    pub(crate) async fn changed(&self) {
        self.change.notified().await;
    }

    /// The last wish about each channel.
    pub(crate) fn take(&self) -> HashMap<Channel, bool> {
        std::mem::take(&mut *self.noted.lock())
    }
}
