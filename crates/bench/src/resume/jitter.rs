//! `jitter`: clients on links that are cut again and again, while messages are published.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::field::{Field, Times};
use crate::cli::Jitter;
use crate::clock::{self, nanos, seconds};
use crate::outcome::{Latency, Run, Table};
use crate::target::{Scheme, Target};
use crate::template::Template;

/// The longest sleep.
const MILLI: Duration = Duration::from_millis(1);

/// What a run of `jitter` found.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    run: Run,
    clients: usize,
    messages: u32,
    cuts: u64,
    delivered: u64,
    expected: u64,
    percent: f64,
    repeated: u64,
    /// Messages that newer ones came in front of.
    missed: u64,
    gaps: u64,
    /// Connections that ended without being cut here.
    lost: u64,
    seconds: f64,
    /// Each that had missed something, from its connect until it had everything.
    #[serde(flatten)]
    replay: Latency,
}

/// Runs it.
pub(crate) fn run(arguments: &Jitter) -> anyhow::Result<Outcome> {
    let target = Target::parse(&arguments.url, &arguments.channel).context("--url")?;
    ensure!(target.scheme == Scheme::WebSocket, "ws: is needed");
    ensure!(target.path.contains("channel="), "the URL must name the {{channel}}");
    let to = Target::parse(&arguments.publish, &arguments.channel).context("--publish")?;
    ensure!(to.scheme != Scheme::Redis, "a plain PUBLISH is not stored: publish over http: or ws:");
    let template = Template::new(&to, None, &arguments.channel, arguments.payload_bytes)?;
    let mut field = Field::new(arguments.sources)?;
    let (count, every, away) =
        (arguments.clients, nanos(arguments.every.into()), nanos(arguments.away.into()));
    ensure!(count > 0 && every > away, "a client must be there longer than away");
    field.open(&target, count, arguments.at_once)?;
    // Not before: a server ends a connection on which no request comes.
    let publisher = field.publisher(&to, template)?;

    let (mut times, mut plan, mut cuts) = (Times::new(usize::MAX)?, BinaryHeap::new(), 0);
    let began = clock::now();
    for index in 0..count {
        // Spread evenly over the interval, or all together.
        let share = if arguments.together { 1.0 } else { (index + 1) as f64 / count as f64 };
        plan.push(Reverse((began + (every as f64 * share) as u64, index, true)));
    }
    let (mut published, mut ended) = (0, None);
    loop {
        let now = clock::now();
        while published < arguments.messages
            && f64::from(published) <= seconds(now - began) * arguments.rate
        {
            field.publish(publisher, published)?;
            published += 1;
        }
        if published == arguments.messages {
            let since = *ended.get_or_insert(now);
            let patience = nanos(arguments.patience.into()) + away;
            if field.all_have(0..count, published) || now - since > patience {
                break;
            }
        }
        while let Some(Reverse((at, index, cut))) =
            plan.peek().copied().filter(|one| one.0.0 <= now)
        {
            plan.pop();
            if !cut {
                field.come(index, published)?;
                plan.push(Reverse((at + every - away, index, true)));
            } else if ended.is_none() {
                field.cut(index);
                cuts += 1;
                plan.push(Reverse((at + away, index, false)));
            }
        }
        field.turn(&mut times, published, MILLI)?;
    }
    ensure!(field.answered(publisher).1 == 0, "the server refuses what is published");
    let seen = field.seen(0..count);
    let expected = count as u64 * u64::from(published);
    Ok(Outcome {
        run: arguments.print.run(),
        clients: count,
        messages: published,
        cuts,
        delivered: seen.delivered,
        expected,
        percent: 100.0 * seen.delivered as f64 / expected.max(1) as f64,
        repeated: seen.repeated,
        missed: seen.missed,
        gaps: seen.gaps,
        lost: seen.lost,
        seconds: seconds(clock::now() - began),
        replay: Latency::of(&times.replay),
    })
}

impl Table for Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("clients", format!("{}, cut {} times in all", self.clients, self.cuts)),
            ("published", self.messages.to_string()),
            (
                "delivered",
                format!("{} of {}: {:.4} %", self.delivered, self.expected, self.percent),
            ),
            ("twice", self.repeated.to_string()),
            ("missed", self.missed.to_string()),
            ("gaps", self.gaps.to_string()),
            ("connections lost", self.lost.to_string()),
            ("took", format!("{:.1} s", self.seconds)),
            ("replay", self.replay.to_string()),
        ]
    }
}
