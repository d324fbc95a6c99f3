//! How outcomes are printed: one JSON line, or a table to read.

use std::fmt;
use std::io::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::Print;
use crate::clock::micros;

/// Names a run among others, for `summary`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) round: Option<u32>,
}

/// Times, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub(crate) fn of(times: &Histogram<u64>) -> Self {
        let at = |quantile| micros(times.value_at_quantile(quantile));
        Self { p50_us: at(0.5), p99_us: at(0.99), max_us: micros(times.max()) }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |micros: f64| micros / 1e3;
        let (p50, p99, max) = (millis(self.p50_us), millis(self.p99_us), millis(self.max_us));
        write!(out, "p50 {p50:.3} ms, p99 {p99:.3} ms, at most {max:.3} ms")
    }
}

/// What can be shown as lines of a name and a value.
pub(crate) trait Table {
    /// The lines.
    fn rows(&self) -> Vec<(&'static str, String)>;
}

#[derive(Serialize)]
struct Line<'a, T> {
    kind: &'a str,
    #[serde(flatten)]
    outcome: &'a T,
}

/// Prints an outcome as asked for.
pub(crate) fn print<T: Serialize + Table>(
    how: &Print,
    kind: &str,
    outcome: &T,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if how.json {
        serde_json::to_writer(&mut out, &Line { kind, outcome })?;
        writeln!(out)?;
    } else {
        for (name, value) in outcome.rows() {
            writeln!(out, "{name:>20}  {value}")?;
        }
    }
    Ok(())
}
