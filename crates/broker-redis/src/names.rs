//! The names of things in Redis.

use std::sync::Arc;

/// Makes and reads names. What belongs to nodes holds `{node}`, which no channel can.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// With the colon.
    prefix: Arc<str>,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}:").into() }
    }

    /// The two parts whose bytes, one after the other, are a channel's Pub/Sub name.
    pub(crate) fn parts<'a>(&'a self, channel: &'a str) -> [&'a [u8]; 2] {
        [self.prefix.as_bytes(), channel.as_bytes()]
    }

    /// The channel of a Pub/Sub name.
    pub(crate) fn channel<'a>(&self, name: &'a [u8]) -> Option<&'a str> {
        let channel = name.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(channel).ok()
    }

    /// The Pub/Sub name on which one link listens to itself.
    pub(crate) fn echo(&self, nonce: u64) -> String {
        format!("{}{{node}}:echo:{nonce:016x}", self.prefix)
    }

    /// The Redis name that stands for all of a channel: its Pub/Sub name, from which the library makes
    /// its keys.
    pub(crate) fn of(&self, channel: &str) -> String {
        format!("{}{channel}", self.prefix)
    }

    /// The key of a channel's last id.
    pub(crate) fn last_id(&self, channel: &str) -> String {
        format!("{{{}{channel}}}:top", self.prefix)
    }

    /// The function library's name, which its functions' begin with. Redis allows no `-` there.
    pub(crate) fn library(&self) -> String {
        self.prefix.trim_end_matches(':').replace('-', "_")
    }

    /// The key that whoever loads the library writes, so that two who do it at once notice.
    pub(crate) fn library_lock(&self) -> String {
        format!("{}{{node}}:library", self.prefix)
    }

    /// The prefix with its colon.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of the random text that is gone after a flush.
    pub(crate) fn epoch(&self) -> String {
        format!("{}{{node}}:epoch", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let names = Names::new("tidewire");
        let name = names.parts("room:42").concat();
        assert_eq!(name, b"tidewire:room:42");
        assert_eq!(names.channel(&name), Some("room:42"));
        assert_eq!(names.channel(b"tidewire2:room"), None);
        assert_eq!(names.channel(b"tidewire:\xff"), None);
        assert_eq!(names.echo(255), "tidewire:{node}:echo:00000000000000ff");
        assert_eq!(names.last_id("room:42"), "{tidewire:room:42}:top");
        assert_eq!(names.epoch(), "tidewire:{node}:epoch");
        assert_eq!(Names::new("my-app").library(), "my_app");
    }
}
