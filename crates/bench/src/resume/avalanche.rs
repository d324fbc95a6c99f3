//! `avalanche`: all clients of a channel lose their node and come back at once.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::field::{Field, Times};
use super::redis::{self, Calls};
use crate::cli::Avalanche;
use crate::clock::{self, nanos, seconds};
use crate::outcome::{Latency, Run, Table};
use crate::target::{Scheme, Target};
use crate::template::Template;

/// How long everything before may be measured for comparison, in nanoseconds.
const CALM: u64 = 2_000_000_000;
/// The longest sleep while something is due.
const MILLI: Duration = Duration::from_millis(1);
/// As good as none.
const NOW: Duration = Duration::from_micros(1);

/// What a run of `avalanche` found.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    run: Run,
    clients: usize,
    messages: u32,
    /// Messages that came back to somebody, of clients times messages.
    delivered: u64,
    expected: u64,
    repeated: u64,
    gaps: u64,
    /// Connections that ended on the way and had to be made again.
    retried: u64,
    /// From the first connect until the last client had everything.
    seconds: f64,
    /// Each, from its connect until it had everything it had missed.
    #[serde(flatten)]
    replay: Latency,
    /// From publish to receipt, of those who stayed; before and meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    calm: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meanwhile: Option<Latency>,
    /// What Redis was asked meanwhile, those who stayed included.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Calls>,
}

/// Runs it.
pub(crate) fn run(arguments: &Avalanche) -> anyhow::Result<Outcome> {
    let target = Target::parse(&arguments.url, &arguments.channel).context("--url")?;
    let back = arguments.back.as_ref().unwrap_or(&arguments.url);
    let back = Target::parse(back, &arguments.channel).context("--back")?;
    ensure!(
        target.scheme == Scheme::WebSocket && back.scheme == Scheme::WebSocket,
        "ws: is needed"
    );
    ensure!(target.path.contains("channel="), "the URL must name the {{channel}}");
    let redis = arguments.redis.as_ref().map(|url| Target::parse(url, "")).transpose()?;
    let mut field = Field::new(arguments.sources)?;
    let (count, watchers) = (arguments.clients, arguments.watchers);
    field.open(&target, count, arguments.at_once)?;
    let stayed = format!("{}-stayed", arguments.channel);
    let url = arguments.back.as_ref().unwrap_or(&arguments.url);
    // In an event queue of their own, so that they do not wait behind thousands of others here.
    let mut stay = Field::new(arguments.sources)?;
    stay.open(&Target::parse(url, &stayed)?, watchers, arguments.at_once)?;
    // Not before: a server ends a connection on which no request comes.
    let missed = publisher(&mut field, arguments, &arguments.channel)?;
    let watched = publisher(&mut stay, arguments, &stayed)?;

    (0..count).for_each(|index| field.cut(index));
    for number in 0..arguments.messages {
        field.publish(missed, number)?;
    }
    let mut unseen = Times::new(usize::MAX)?;
    let mut pulse =
        Pulse { publisher: watched, rate: arguments.rate, began: clock::now(), next: 0 };
    let (mut calm, mut meanwhile) = (Times::new(0)?, Times::new(0)?);
    while clock::now() - pulse.began < CALM || field.answered(missed).0 < arguments.messages.into()
    {
        ensure!(field.answered(missed).1 == 0, "the server refuses what is published");
        ensure!(clock::now() - pulse.began < 5 * CALM, "the server does not answer publishes");
        pulse.beat(&mut stay)?;
        stay.turn(&mut calm, 0, MILLI)?;
        field.turn(&mut unseen, 0, NOW)?;
    }
    let before = redis.as_ref().map(redis::calls).transpose()?;
    let mut times = Times::new(usize::MAX)?;
    let began = clock::now();
    for index in 0..count {
        field.members[index].target = back.clone();
        field.come(index, arguments.messages)?;
        // Not so many that those who stayed would wait for this process.
        if index % 64 == 0 {
            pulse.beat(&mut stay)?;
            stay.turn(&mut meanwhile, 0, NOW)?;
            field.turn(&mut times, arguments.messages, NOW)?;
        }
    }
    while !field.all_have(0..count, arguments.messages)
        && clock::now() - began < nanos(arguments.patience.into())
    {
        pulse.beat(&mut stay)?;
        stay.turn(&mut meanwhile, 0, NOW)?;
        field.turn(&mut times, arguments.messages, MILLI)?;
    }
    let took = clock::now() - began;
    let after = redis.as_ref().map(redis::calls).transpose()?;
    let seen = field.seen(0..count);
    let has_watchers = watchers > 0;
    Ok(Outcome {
        run: arguments.print.run(),
        clients: count,
        messages: arguments.messages,
        delivered: seen.delivered,
        expected: count as u64 * u64::from(arguments.messages),
        repeated: seen.repeated,
        gaps: seen.gaps,
        retried: seen.lost,
        seconds: seconds(took),
        replay: Latency::of(&times.replay),
        calm: has_watchers.then(|| Latency::of(&calm.latency)),
        meanwhile: has_watchers.then(|| Latency::of(&meanwhile.latency)),
        redis: before.zip(after).map(|(before, after)| redis::since(&before, after)),
    })
}

fn publisher(field: &mut Field, arguments: &Avalanche, channel: &str) -> anyhow::Result<usize> {
    let target = Target::parse(&arguments.publish, channel).context("--publish")?;
    ensure!(
        target.scheme != Scheme::Redis,
        "a plain PUBLISH is not stored: publish over http: or ws:"
    );
    let template = Template::new(&target, None, channel, arguments.payload_bytes)?;
    field.publisher(&target, template)
}

/// Publishes to those who stayed, evenly.
struct Pulse {
    publisher: usize,
    rate: f64,
    began: u64,
    next: u32,
}

impl Pulse {
    fn beat(&mut self, field: &mut Field) -> anyhow::Result<()> {
        while f64::from(self.next) < seconds(clock::now() - self.began) * self.rate {
            field.publish(self.publisher, self.next)?;
            self.next += 1;
        }
        Ok(())
    }
}

impl Table for Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            (
                "clients",
                format!("{}, each with {} messages to catch up on", self.clients, self.messages),
            ),
            ("delivered", format!("{} of {}", self.delivered, self.expected)),
            ("twice", self.repeated.to_string()),
            ("gaps", self.gaps.to_string()),
            ("connected again", self.retried.to_string()),
            ("all were back in", format!("{:.2} s", self.seconds)),
            ("each was back in", self.replay.to_string()),
        ];
        if let (Some(calm), Some(meanwhile)) = (&self.calm, &self.meanwhile) {
            rows.push(("who stayed, before", calm.to_string()));
            rows.push(("who stayed, meanwhile", meanwhile.to_string()));
        }
        if let Some(redis) = &self.redis {
            let all: Vec<_> = redis.iter().map(|(name, calls)| format!("{name} {calls}")).collect();
            rows.push(("calls to Redis", all.join(", ")));
        }
        rows
    }
}
