//! `connect`: many idle connections, and what each costs the server.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use serde::Serialize;

use crate::cli::Connect;
use crate::clock::seconds;
use crate::crowd::{Crowd, Losses, OTHERS, Opening, Plan, Turn};
use crate::outcome::{Latency, Run, Table};
use crate::process::Memory;
use crate::target::Target;

/// What a run of `connect` found.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    run: Run,
    transport: &'static str,
    connections: usize,
    /// All channels that connections have to themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<usize>,
    /// Those that were still there at the end.
    held: usize,
    #[serde(flatten)]
    losses: Losses,
    hold_seconds: u64,
    /// Messages that came during the hold, on all connections together.
    received: u64,
    /// The longest that one of them took.
    slowest_seconds: f64,
    /// From the connect to being subscribed, each.
    #[serde(flatten)]
    opening: Latency,
    /// All together.
    opening_seconds: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    memory: Option<Growth>,
}

/// The server's memory, in bytes; before the first connection and at the end of the hold.
#[derive(Debug, Serialize)]
struct Growth {
    rss_before: u64,
    rss_after: u64,
    anonymous_before: u64,
    anonymous_after: u64,
    rss_per_connection: f64,
    anonymous_per_connection: f64,
    /// With channels of their own: the whole growth by the channels, connections included.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_per_channel: Option<f64>,
}

/// Runs it.
pub(crate) fn run(arguments: &Connect) -> anyhow::Result<Outcome> {
    let targets = targets(arguments)?;
    ensure!(arguments.connections > 0, "there must be a connection");
    let before = Memory::of(&arguments.pid)?;
    let (mut crowd, opening) = Crowd::open(&Plan {
        targets: &targets,
        size: arguments.connections,
        at_once: arguments.crowd.at_once,
        sources: arguments.crowd.sources,
        words: &arguments.crowd.words(),
        stalled: 0,
        refusal: None,
    })?;
    // For who waits for it, beside the report at the end.
    let count = arguments.connections;
    let _ = writeln!(std::io::stderr(), "tidewire-bench: {count} connections are open");
    if arguments.until_closed {
        let input = rustix::stdio::stdin();
        let token = Token(OTHERS);
        crowd.registry().register(&mut SourceFd(&input.as_raw_fd()), token, Interest::READABLE)?;
    }
    let (began, held) = (Instant::now(), hold(&mut crowd, arguments.hold.into())?);
    let after = Memory::of(&arguments.pid)?;
    let Opening { times, took } = opening;
    Ok(Outcome {
        run: arguments.print.run(),
        transport: targets[0].scheme.transport(),
        connections: arguments.connections,
        channels: arguments.own.map(|own| own * arguments.connections),
        held: crowd.alive(),
        losses: crowd.losses(),
        hold_seconds: began.elapsed().as_secs(),
        received: held.received,
        slowest_seconds: seconds(held.slowest),
        opening: Latency::of(&times),
        opening_seconds: seconds(took),
        memory: (!arguments.pid.is_empty())
            .then(|| Growth::of(before, after, crowd.alive(), arguments.own)),
    })
}

/// Where to: one for all, or with channels of its own for each.
fn targets(arguments: &Connect) -> anyhow::Result<Vec<Target>> {
    let Connect { url, channel, own, .. } = arguments;
    let Some(own) = own else { return Ok(vec![Target::parse(url, channel).context("--url")?]) };
    ensure!(!url.contains('?'), "with --own the URL has no query");
    let each = |index| {
        let names = (0..*own).map(|number| format!("channel={channel}-{index}-{number}"));
        let query = names.collect::<Vec<_>>().join("&");
        Target::parse(&format!("{url}?{query}"), channel).context("--url")
    };
    (0..arguments.connections).map(each).collect()
}

/// What came while all connections were held.
#[derive(Default)]
struct Held {
    received: u64,
    /// In nanoseconds.
    slowest: u64,
}

/// Keeps all connections open, answering heartbeats, for so long or until standard input ends.
fn hold(crowd: &mut Crowd, length: Duration) -> anyhow::Result<Held> {
    let (began, mut turn, mut held) = (Instant::now(), Turn::default(), Held::default());
    // Nothing but standard input has a token that is no subscriber's.
    while turn.others.is_empty()
        && let Some(left) = length.checked_sub(began.elapsed()).filter(|left| !left.is_zero())
    {
        crowd.turn(&mut turn, Some(left), |marker, now| {
            held.received += 1;
            held.slowest = held.slowest.max(now.saturating_sub(marker.sent));
        })?;
    }
    Ok(held)
}

impl Growth {
    #[allow(clippy::cast_precision_loss)]
    fn of(before: Memory, after: Memory, connections: usize, own: Option<usize>) -> Self {
        let each = |before: u64, after: u64| (after as f64 - before as f64) / connections as f64;
        let rss = each(before.rss, after.rss);
        Self {
            rss_before: before.rss,
            rss_after: after.rss,
            anonymous_before: before.anonymous,
            anonymous_after: after.anonymous,
            rss_per_connection: rss,
            anonymous_per_connection: each(before.anonymous, after.anonymous),
            rss_per_channel: own.map(|own| rss / own as f64),
        }
    }
}

impl Table for Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("transport", self.transport.to_owned()),
            ("connections", format!("{}, of which lost: {}", self.connections, self.losses)),
            ("held for", format!("{} s", self.hold_seconds)),
            ("messages received", self.received.to_string()),
            ("opened in", format!("{:.2} s", self.opening_seconds)),
            ("each subscribed in", self.opening.to_string()),
        ];
        if let Some(memory) = &self.memory {
            let kib = |bytes: u64| bytes >> 10;
            let (before, after) = (kib(memory.rss_before), kib(memory.rss_after));
            let each = memory.rss_per_connection;
            rows.push(("resident", format!("{before} to {after} KiB: {each:.0} B a connection")));
            let (before, after) = (kib(memory.anonymous_before), kib(memory.anonymous_after));
            let each = memory.anonymous_per_connection;
            rows.push(("anonymous", format!("{before} to {after} KiB: {each:.0} B a connection")));
            if let Some(each) = memory.rss_per_channel {
                rows.push(("resident", format!("{each:.0} B a channel")));
            }
        }
        rows
    }
}
