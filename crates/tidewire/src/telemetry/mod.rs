//! What the process tells about itself: log lines and metrics. Set up once at the start of
//! `serve`; the other commands print for people and need neither.

mod names;
pub(crate) mod process;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Upper bounds of all histograms in seconds, from a hand-over within the process (50 µs) to what
/// is as good as never (10 s). Without them the exporter makes summaries, which cannot be added
/// over nodes.
const BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// How often what histograms have gathered is folded up; between, each observation costs memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// Sends log lines to standard error from now on. An error if that was done before.
pub(crate) fn init_logs(log: &Log) -> anyhow::Result<()> {
    let terminal = std::io::stderr().is_terminal();
    let base = fmt().with_env_filter(log.level.filter()).with_writer(std::io::stderr);
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let started = if json {
        base.json().flatten_event(true).finish().try_init()
    } else {
        base.with_ansi(terminal).finish().try_init()
    };
    started.context("log lines cannot be set up")
}

/// Makes this process's metrics go to the handle's page, with their descriptions. An error if that
/// was done before. [`upkeep`] must run as long as the process does.
pub(crate) fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let recorder = metrics_recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("metrics cannot be set up")?;
    describe();
    Ok(handle)
}

/// A recorder with our buckets that nothing records to yet.
pub(crate) fn metrics_recorder() -> anyhow::Result<PrometheusRecorder> {
    Ok(PrometheusBuilder::new().set_buckets(&BUCKETS)?.build_recorder())
}

/// Tells the present recorder what each metric means, and the build.
pub(crate) fn describe() {
    names::describe();
    metrics::gauge!("tidewire_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Folds up histograms at intervals until cancelled.
pub(crate) async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets_and_help() {
        let recorder = metrics_recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::histogram!("tidewire_publish_seconds").record(0.0003);
        });
        let page = recorder.handle().render();
        let lines = [
            "# TYPE tidewire_publish_seconds histogram",
            "tidewire_publish_seconds_bucket{le=\"0.00025\"} 0",
            "tidewire_publish_seconds_bucket{le=\"0.0005\"} 1",
            "tidewire_publish_seconds_bucket{le=\"10\"} 1",
        ];
        for line in lines {
            assert!(page.contains(line), "{line}\n{page}");
        }
        assert!(page.contains("# HELP tidewire_publish_seconds "), "{page}");
    }

    #[tokio::test]
    async fn upkeep_ends_when_told() {
        let stop = CancellationToken::new();
        let handle = metrics_recorder().unwrap().handle();
        let task = tokio::spawn(upkeep(handle, stop.clone()));
        stop.cancel();
        task.await.unwrap();
    }
}
