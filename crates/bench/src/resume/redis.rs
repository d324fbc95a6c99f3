//! How often each command was called on a Redis: what a crowd costs the server behind the server.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::target::Target;

/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls by command.
pub(super) type Calls = BTreeMap<String, u64>;

/// Asks Redis (`INFO commandstats`).
pub(super) fn calls(target: &Target) -> anyhow::Result<Calls> {
    let mut socket = TcpStream::connect(target.address).context("--redis")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"INFO commandstats\r\n")?;
    let (mut answer, mut input) = (Vec::new(), [0; 16 << 10]);
    loop {
        let length = socket.read(&mut input).context("--redis")?;
        ensure!(length > 0, "Redis closed the connection");
        answer.extend_from_slice(&input[..length]);
        ensure!(
            answer.first() == Some(&b'$'),
            "Redis answers {}",
            String::from_utf8_lossy(&answer)
        );
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n") else { continue };
        let length: usize = head[1..].parse().context("the length of Redis's answer")?;
        if body.len() >= length {
            return Ok(parse(body));
        }
    }
}

fn parse(text: &str) -> Calls {
    let lines = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    lines.collect()
}

/// What was called between two looks, more than never; the looks themselves left out.
pub(super) fn since(before: &Calls, after: Calls) -> Calls {
    let grown = after.into_iter().map(|(name, calls)| {
        let grown = calls - before.get(&name).copied().unwrap_or(0).min(calls);
        (name, grown)
    });
    grown.filter(|(name, grown)| *grown > 0 && name != "info").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted() {
        let before =
            parse("# Commandstats\r\ncmdstat_get:calls=2,usec=1\r\ncmdstat_info:calls=1\r\n");
        let after = parse("cmdstat_get:calls=2,usec=1\r\ncmdstat_fcall_ro:calls=3,usec=9\r\n");
        assert_eq!(since(&before, after), Calls::from([("fcall_ro".to_owned(), 3)]));
    }
}
