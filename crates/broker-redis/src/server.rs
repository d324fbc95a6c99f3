//! Which server this is, and which life of its data.

use tidewire_protocol::Incarnation;

use crate::settings::AfterRestart;

/// What `INFO server` and `INFO replication` tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// New at each start of the process.
    pub(crate) run_id: String,
    /// `master_replid`: new at each restart and promotion.
    pub(crate) replication_id: String,
    pub(crate) master: bool,
}

impl Server {
    pub(crate) fn read(server: &str, replication: &str) -> Self {
        Self {
            run_id: field(server, "run_id").to_owned(),
            replication_id: field(replication, "master_replid").to_owned(),
            master: field(replication, "role") == "master",
        }
    }
}

/// A line `name:value` of an answer to INFO; empty when it is not there.
fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).unwrap_or_default().trim_end()
}

/// The `maxmemory_policy` of `INFO memory`, if it lets Redis throw away keys.
pub(crate) fn evicting(memory: &str) -> Option<&str> {
    Some(field(memory, "maxmemory_policy")).filter(|policy| !matches!(*policy, "" | "noeviction"))
}

/// How many subscriptions a line of `CLIENT LIST` tells; none when it has no such field (there is
/// no such client).
pub(crate) fn subscriptions(client: &str) -> Option<usize> {
    client.split_ascii_whitespace().find_map(|word| word.strip_prefix("sub=")?.parse().ok())
}

/// Which life of the stored data this is: the same on all nodes and in the function library, another
/// after a flush, and after a restart or a promotion unless those are trusted.
pub(crate) fn incarnation(server: &Server, epoch: &str, after: AfterRestart) -> Incarnation {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(match after {
        AfterRestart::Gap => server.replication_id.as_bytes(),
        AfterRestart::Trust => b"trust",
    });
    hash.update(b"\n");
    hash.update(epoch.as_bytes());
    // The first 8 of 20 bytes.
    Incarnation::new(hash.digest().bytes().iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read() {
        let server = Server::read(
            "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n",
            "# Replication\r\nrole:slave\r\nmaster_replid:def\r\nmaster_replid2:000\r\n",
        );
        let expected = Server { run_id: "abc".into(), replication_id: "def".into(), master: false };
        assert_eq!(server, expected);
    }

    #[test]
    fn policies_are_read() {
        assert_eq!(evicting("# Memory\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert_eq!(evicting("maxmemory_policy:volatile-ttl\r\n"), Some("volatile-ttl"));
        assert_eq!(evicting("# Memory\r\nused_memory:1\r\n"), None);
    }

    #[test]
    fn clients_are_read() {
        let line = "id=4 addr=127.0.0.1:1 name=x sub=17 psub=0 ssub=0 multi=-1\n";
        assert_eq!(subscriptions(line), Some(17));
        assert_eq!(subscriptions(""), None);
    }

    #[test]
    fn incarnations_differ_by_both_parts() {
        let server = |id: &str| Server::read("", &format!("master_replid:{id}"));
        let gap = |id, epoch| incarnation(&server(id), epoch, AfterRestart::Gap);
        let one = gap("a", "b");
        assert_eq!(one, gap("a", "b"));
        assert_ne!(one, gap("a", "c"));
        assert_ne!(one, gap("ab", ""));
        let trust = |id, epoch| incarnation(&server(id), epoch, AfterRestart::Trust);
        assert_eq!(trust("a", "b"), trust("c", "b"));
        assert_ne!(trust("a", "b"), trust("a", "c"));
        // `printf 'a\nb' | sha1sum`
        assert_eq!(one.to_string(), "fcd127ffa1016069");
    }
}
