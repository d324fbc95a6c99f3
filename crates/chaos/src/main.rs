//! The `tidewire-chaos` binary: breaks a cluster in every way and checks what its clients saw.
//!
//! It plays rounds, each with a fresh cluster and a seed of its own, until the time is over. Every
//! round records what was published, acknowledged, delivered and told, and holds it against the
//! contract. It drives processes over sockets; nothing of the gateway runs in it.

mod check;
mod cluster;
mod fault;
mod history;
mod http;
mod message;
mod plan;
mod promotion;
mod publisher;
mod reader;
mod report;
mod round;
mod schedule;
mod shared;
mod standby;
mod witness;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;

use check::Rule;
use plan::Mode;
use report::Report;
use round::{Outcome, Settings};

/// Breaks a cluster of real nodes on a real Redis in every way, and checks what its clients saw.
#[derive(Debug, Parser)]
#[command(name = "tidewire-chaos", version)]
struct Cli {
    /// How long to run in all, in minutes.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// The seed of the first round; the next ones have the next numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long one round lasts, in seconds, with its start and its end.
    #[arg(long, default_value_t = 75)]
    round: u64,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many readers.
    #[arg(long, default_value_t = 120)]
    readers: usize,
    /// How many publishers.
    #[arg(long, default_value_t = 16)]
    publishers: usize,
    /// Redis writes everything down before it answers, and loses nothing: the nodes trust it, and
    /// no restart may be told as a gap.
    #[arg(long)]
    trust: bool,
    /// For how many replicas an ack waits. With 1 there is one, which at times stops, and at times
    /// takes over: it must have what was acknowledged.
    #[arg(long, default_value_t = 0, conflicts_with = "trust",
          value_parser = clap::value_parser!(u8).range(0..=1))]
    wait_replicas: u8,
    /// Where histories and logs of rounds with violations are kept.
    #[arg(long, default_value = "target/chaos")]
    keep: PathBuf,
    /// Only these faults, by the names in the table; comma-separated.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keeps those of every round.
    #[arg(long)]
    keep_all: bool,
}

impl Cli {
    const fn mode(&self) -> Mode {
        match (self.trust, self.wait_replicas) {
            (true, _) => Mode::Trust,
            (false, 0) => Mode::Usual,
            (false, _) => Mode::Standby,
        }
    }
}

/// What a round takes beside its storm, about.
const OVERHEAD: Duration = Duration::from_secs(12);
/// A round that is not done by so much later is stuck.
const STUCK: Duration = Duration::from_secs(150);
/// The most violations of one rule that are printed of a round.
const PRINTED: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("tidewire-chaos: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Plays rounds; how many violations there were.
async fn run(cli: &Cli) -> anyhow::Result<usize> {
    let end = Instant::now() + Duration::from_secs_f64(cli.minutes * 60.0);
    let mut report = Report::default();
    for seed in cli.seed.. {
        let left = end.saturating_duration_since(Instant::now());
        let length = left.min(Duration::from_secs(cli.round));
        // A rest that is too short for a storm is left out, unless it would be the only round.
        if length < OVERHEAD + Duration::from_secs(5) && seed > cli.seed {
            break;
        }
        let storm = length.saturating_sub(OVERHEAD).max(Duration::from_secs(5));
        let (nodes, readers, publishers) = (cli.nodes, cli.readers, cli.publishers);
        let only = cli.only.clone();
        let mode = cli.mode();
        let settings = Settings { seed, mode, storm, nodes, readers, publishers, only };
        let folder = cli.keep.join(format!("seed-{seed}"));
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let began = Instant::now();
        let round = tokio::time::timeout(length + STUCK, round::play(&settings, &folder));
        let outcome = round.await.context("the round is stuck")?;
        let outcome = outcome.with_context(|| format!("the round of seed {seed}"))?;
        report.add(&outcome);
        tell(cli, &settings, &outcome, &folder, began.elapsed())?;
    }
    say(&report.to_string());
    Ok(report.violations)
}

/// Prints a round's outcome, and keeps its history if something is wrong.
fn tell(
    cli: &Cli,
    settings: &Settings,
    outcome: &Outcome,
    folder: &Path,
    took: Duration,
) -> anyhow::Result<()> {
    let Outcome { plan, records, violations } = outcome;
    let seed = settings.seed;
    say(&format!(
        "seed {seed}: {} events in {:.0} s, {} violations",
        records.len(),
        took.as_secs_f32(),
        violations.len()
    ));
    if violations.is_empty() && !cli.keep_all {
        std::fs::remove_dir_all(folder)?;
        return Ok(());
    }
    let path = folder.join("history.jsonl");
    history::write(&path, plan, records).with_context(|| format!("writing {}", path.display()))?;
    let mut printed: BTreeMap<Rule, usize> = BTreeMap::new();
    for violation in violations {
        let count = printed.entry(violation.rule).or_default();
        *count += 1;
        if *count <= PRINTED {
            say(&format!("  {violation}"));
        }
    }
    say(&format!("  by rule: {printed:?}"));
    say(&format!("  history and logs: {}", path.display()));
    let minutes = (settings.storm + OVERHEAD).as_secs_f32() / 60.0;
    let flags = settings.mode.flags();
    say(&format!("  again: scripts/chaos --seed {seed} --minutes {minutes:.2}{flags}"));
    Ok(())
}

fn say(line: &str) {
    // Nothing can be done if standard output is gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}
