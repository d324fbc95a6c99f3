//! `fanout` and `cross`: one channel's messages to its subscribers.

use anyhow::{Context, ensure};
use mio::Token;
use serde::Serialize;

use crate::cli::Load;
use crate::clock::{micros, seconds};
use crate::crowd::{Crowd, Losses, OTHERS, Plan};
use crate::outcome::{Latency, Run, Table};
use crate::phase::{Phase, Stage};
use crate::process::Course;
use crate::publisher::Publisher;
use crate::target::Target;
use crate::template::Template;

/// What a run of `fanout` or `cross` found.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    run: Run,
    /// How messages are received.
    transport: &'static str,
    /// How they are published.
    publish: &'static str,
    subscribers: usize,
    channels: usize,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    stalled: Option<Stalled>,
    payload_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    under_way: Option<u32>,
    /// After how many messages it was to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<u64>,
    /// From the first publish to the last receipt.
    seconds: f64,
    published: u64,
    /// Publishes that the server refused.
    refused: u64,
    expected: u64,
    delivered: u64,
    #[serde(flatten)]
    losses: Losses,
    #[serde(flatten)]
    latency: Latency,
    messages_per_second: f64,
    deliveries_per_second: f64,
    /// CPU of the server per delivered message, in microseconds; with a process id only.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us: Option<f64>,
    /// The part of it in user space.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_user_us: Option<f64>,
    /// How much of one core the server used, 0 to 1 and beyond.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_busy: Option<f64>,
    client_cpu_us: f64,
    /// Near 1 the generator is what is being measured.
    client_busy: f64,
    /// The server's resident memory, in bytes; with a process id only.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    memory: Option<Course>,
}

/// Subscribers that did not read.
#[derive(Debug, Serialize)]
struct Stalled {
    stalled: usize,
    /// Those that the server let go.
    let_go: usize,
}

/// Runs it.
pub(crate) fn run(load: &Load) -> anyhow::Result<Outcome> {
    let (count, channels) = (load.subscribers, load.channels);
    ensure!(count > 0, "there must be a subscriber");
    ensure!(channels > 0 && count.is_multiple_of(channels), "--channels divides --subscribers");
    let stalled = load.stalled;
    ensure!(
        stalled < count && stalled.is_multiple_of(channels),
        "--channels divides --stalled, and somebody reads"
    );
    let (mut subscribes, mut templates) = (vec![], vec![]);
    for name in &load.names() {
        subscribes.push(Target::parse(&load.url, name).context("--url")?);
        let target = Target::parse(&load.publish, name).context("--publish")?;
        templates.push(Template::new(&target, load.body.as_deref(), name, load.payload_bytes)?);
    }
    let subscribe = &subscribes[0];
    let publish = Target::parse(&load.publish, &load.channel).context("--publish")?;
    let (crowd, _) = Crowd::open(&Plan {
        targets: &subscribes,
        size: load.subscribers,
        at_once: load.crowd.at_once,
        sources: load.crowd.sources,
        words: &load.crowd.words(),
        stalled: load.stalled,
        refusal: None,
    })?;
    let publishers = (0..load.publishers.max(1))
        .map(|index| {
            let token = Token(OTHERS + index);
            Publisher::open(&publish, crowd.registry(), token)
        })
        .collect::<anyhow::Result<_>>()?;
    let pids = load.pid.clone();
    let mut stage = Stage { crowd, publishers, templates, pace: load.pace(), pids, next: 0 };
    stage.phase(load.warmup.into(), None)?;
    stage.crowd.whole()?;
    let refused = stage.refused();
    let phase = stage.phase(load.seconds.into(), load.messages)?;
    let refused = stage.refused() - refused;
    let let_go = stage.crowd.let_go();
    Ok(Outcome {
        stalled: (stalled > 0).then_some(Stalled { stalled, let_go }),
        transport: subscribe.scheme.transport(),
        publish: publish.scheme.publishing(),
        refused,
        ..Outcome::of(load, &phase, stage.crowd.losses())
    })
}

impl Outcome {
    #[allow(clippy::cast_precision_loss)]
    fn of(load: &Load, phase: &Phase, losses: Losses) -> Self {
        let took = seconds(phase.took.max(1));
        let each = |nanos: u64| micros(nanos) / phase.delivered.max(1) as f64;
        let audience = ((load.subscribers - load.stalled) / load.channels.max(1)) as u64;
        let measured = !load.pid.is_empty();
        Self {
            run: load.print.run(),
            transport: "",
            publish: "",
            subscribers: load.subscribers,
            channels: load.channels,
            stalled: None,
            payload_bytes: load.payload_bytes,
            rate: load.saturate.is_none().then_some(load.rate),
            under_way: load.saturate,
            most: load.messages,
            seconds: took,
            published: phase.published,
            refused: 0,
            expected: phase.published * audience,
            delivered: phase.delivered,
            losses,
            latency: Latency::of(&phase.latency),
            messages_per_second: phase.delivered as f64 / audience as f64 / took,
            deliveries_per_second: phase.delivered as f64 / took,
            server_cpu_us: measured.then(|| each(phase.server.total())),
            server_user_us: measured.then(|| each(phase.server.user)),
            server_busy: measured.then(|| seconds(phase.server.total()) / took),
            client_cpu_us: each(phase.client.total()),
            client_busy: seconds(phase.client.total()) / took,
            memory: measured.then_some(phase.memory),
        }
    }
}

impl Table for Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("received over", self.transport.to_owned()),
            ("published over", self.publish.to_owned()),
            ("subscribers", format!("{} of {} channels", self.subscribers, self.channels)),
            ("payload", format!("{} bytes", self.payload_bytes)),
        ];
        match (self.rate, self.under_way) {
            (Some(rate), _) => rows.push(("rate", format!("{rate} messages/s"))),
            (_, Some(count)) => rows.push(("under way", format!("{count} messages"))),
            _ => {}
        }
        rows.extend([
            ("took", format!("{:.2} s", self.seconds)),
            ("published", format!("{} ({} refused)", self.published, self.refused)),
            ("delivered", format!("{} of {}", self.delivered, self.expected)),
            ("connections lost", self.losses.to_string()),
            ("latency", self.latency.to_string()),
            ("messages", format!("{:.1}/s", self.messages_per_second)),
            ("deliveries", format!("{:.0}/s", self.deliveries_per_second)),
        ]);
        if let (Some(cpu), Some(user), Some(busy)) =
            (self.server_cpu_us, self.server_user_us, self.server_busy)
        {
            let share = busy * 100.0;
            let text = format!("{cpu:.2} us a delivery ({user:.2} user), {share:.0} % of a core");
            rows.push(("server CPU", text));
        }
        if let Some(Stalled { stalled, let_go }) = self.stalled {
            rows.push(("did not read", format!("{stalled}, of which {let_go} were let go")));
        }
        if let Some(Course { rss_before, rss_half, rss_after, rss_peak }) = self.memory {
            let text = [rss_before, rss_half, rss_after].map(|bytes| (bytes >> 10).to_string());
            let text = format!("{} KiB, at most {}", text.join(", "), rss_peak >> 10);
            rows.push(("resident", text));
        }
        let share = self.client_busy * 100.0;
        let text = format!("{:.2} us a delivery, {share:.0} % of a core", self.client_cpu_us);
        rows.push(("generator CPU", text));
        rows
    }
}
