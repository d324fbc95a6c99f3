//! `inbound`: many clients, each of which publishes now and then over its own WebSocket.

use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::Inbound;
use crate::clock::{self, micros, seconds};
use crate::crowd::{Crowd, Losses, Plan, Turn};
use crate::marker::{LENGTH, Marker};
use crate::outcome::{Latency, Run, Table};
use crate::pace::Pace;
use crate::process::Cpu;
use crate::target::{Scheme, Target};
use crate::template::Template;

/// How long the last answers may take, in nanoseconds.
const PATIENCE: u64 = 5_000_000_000;

/// The longest sleep.
const NAP: Duration = Duration::from_millis(100);

/// What a run of `inbound` found.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    run: Run,
    clients: usize,
    payload_bytes: usize,
    rate: f64,
    /// From the first publish to the last answer.
    seconds: f64,
    published: u64,
    /// Answers: one for each.
    expected: u64,
    /// Answers that came, refusals included.
    delivered: u64,
    /// Refusals.
    refused: u64,
    #[serde(flatten)]
    losses: Losses,
    /// From the publish to its answer.
    #[serde(flatten)]
    latency: Latency,
    messages_per_second: f64,
    /// CPU of the server per answered message, in microseconds; with a process id only.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us: Option<f64>,
    /// The part of it in user space.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_user_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_busy: Option<f64>,
    client_busy: f64,
}

/// Clients and what they publish.
struct Stage {
    crowd: Crowd,
    template: Template,
    rate: f64,
    clients: usize,
    /// The number of the next message.
    next: u32,
}

/// One stretch of publishing.
struct Phase {
    first: u32,
    sent: u64,
    answered: u64,
    latency: Histogram<u64>,
    took: u64,
}

/// Runs it.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn run(arguments: &Inbound) -> anyhow::Result<Outcome> {
    let target = Target::parse(&arguments.url, &arguments.channel).context("--url")?;
    ensure!(target.scheme == Scheme::WebSocket, "ws: is needed");
    ensure!(arguments.clients > 0, "there must be a client");
    // The answer carries the frame's id: with it comes the time back.
    let payload = "x".repeat(arguments.payload_bytes);
    let body = format!(
        r#"{{"type":"publish","id":"{{payload}}","channel":"{{channel}}","payload":"{payload}"}}"#
    );
    let template = Template::new(&target, Some(&body), &arguments.channel, LENGTH)?;
    let (crowd, _) = Crowd::open(&Plan {
        targets: std::slice::from_ref(&target),
        size: arguments.clients,
        at_once: arguments.crowd.at_once,
        sources: arguments.crowd.sources,
        words: &arguments.crowd.words(),
        stalled: 0,
        refusal: Some(r#""type":"error""#),
    })?;
    let (clients, rate) = (arguments.clients, arguments.rate);
    let mut stage = Stage { crowd, template, rate, clients, next: 0 };
    stage.phase(arguments.warmup.into())?;
    stage.crowd.whole()?;
    let refused = stage.crowd.refused();
    let (server, client) = (Cpu::of(&arguments.pid)?, Cpu::own()?);
    let phase = stage.phase(arguments.seconds.into())?;
    let (server, client) = (Cpu::of(&arguments.pid)? - server, Cpu::own()? - client);
    let (took, measured) = (seconds(phase.took.max(1)), !arguments.pid.is_empty());
    let each = |nanos: u64| micros(nanos) / phase.answered.max(1) as f64;
    Ok(Outcome {
        run: arguments.print.run(),
        clients,
        payload_bytes: arguments.payload_bytes,
        rate,
        seconds: took,
        published: phase.sent,
        expected: phase.sent,
        delivered: phase.answered,
        refused: stage.crowd.refused() - refused,
        losses: stage.crowd.losses(),
        latency: Latency::of(&phase.latency),
        messages_per_second: phase.answered as f64 / took,
        server_cpu_us: measured.then(|| each(server.total())),
        server_user_us: measured.then(|| each(server.user)),
        server_busy: measured.then(|| seconds(server.total()) / took),
        client_busy: seconds(client.total()) / took,
    })
}

impl Stage {
    /// Publishes for this long, and waits for the answers.
    fn phase(&mut self, length: Duration) -> anyhow::Result<Phase> {
        let latency = clock::histogram()?;
        let mut phase = Phase { first: self.next, sent: 0, answered: 0, latency, took: 0 };
        let (began, end) = (clock::now(), clock::nanos(length));
        let (pace, mut turn, mut last) = (Pace::Rate(self.rate), Turn::default(), 0);
        loop {
            let elapsed = clock::now() - began;
            let is_over = elapsed >= end;
            if is_over && (phase.answered >= phase.sent || elapsed - last.max(end) > PATIENCE) {
                break;
            }
            while !is_over && phase.sent < pace.allowed(elapsed, 0) {
                self.send()?;
                phase.sent += 1;
            }
            let wait = if is_over { NAP } else { pace.wait(elapsed, phase.sent, end).min(NAP) };
            let before = phase.answered;
            self.crowd.turn(&mut turn, Some(wait), |marker, now| phase.note(marker, now))?;
            if phase.answered > before {
                last = clock::now() - began;
            }
        }
        phase.took = last;
        Ok(phase)
    }

    /// The next client's message.
    fn send(&mut self) -> anyhow::Result<()> {
        let mut frame = Vec::with_capacity(512);
        self.template.write(Marker { sent: clock::now(), number: self.next }, &mut frame);
        self.crowd.send(self.next as usize % self.clients, &frame).context("publishing")?;
        self.next += 1;
        Ok(())
    }
}

impl Phase {
    fn note(&mut self, marker: Marker, now: u64) {
        if marker.number >= self.first {
            self.answered += 1;
            self.latency.saturating_record(now.saturating_sub(marker.sent));
        }
    }
}

impl Table for Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("clients", format!("{}, of which lost: {}", self.clients, self.losses)),
            ("payload", format!("{} bytes", self.payload_bytes)),
            ("rate", format!("{} messages/s", self.rate)),
            ("took", format!("{:.2} s", self.seconds)),
            (
                "answered",
                format!("{} of {} ({} refused)", self.delivered, self.expected, self.refused),
            ),
            ("latency", self.latency.to_string()),
        ];
        if let (Some(cpu), Some(user), Some(busy)) =
            (self.server_cpu_us, self.server_user_us, self.server_busy)
        {
            let share = busy * 100.0;
            let text = format!("{cpu:.2} us a message ({user:.2} user), {share:.0} % of a core");
            rows.push(("server CPU", text));
        }
        rows.push(("generator CPU", format!("{:.0} % of a core", self.client_busy * 100.0)));
        rows
    }
}
