//! `summary`: medians over the rounds of labelled runs, and paired ratios between labels.
//!
//! Ratios are taken round by round and then their median: what slows the machine for a while
//! slows both runs of the round.

use std::fs;
use std::io::Write;

use anyhow::Context;
use serde_json::{Map, Value};

use crate::cli::Summary;

type Line = Map<String, Value>;

/// The columns of each kind of run: the field, its heading, its decimals, and the divisor that
/// makes its unit.
type Columns = &'static [(&'static str, &'static str, usize, f64)];

const CONNECT: Columns = &[
    ("connections", "connections", 0, 1.0),
    ("channels", "channels of their own", 0, 1.0),
    ("rss_per_connection", "resident B each", 0, 1.0),
    ("anonymous_per_connection", "anonymous B each", 0, 1.0),
    ("rss_per_channel", "B a channel", 0, 1.0),
    ("rss_after", "resident MiB in all", 1, 1_048_576.0),
    ("opening_seconds", "opened in s", 2, 1.0),
    ("p50_us", "subscribed p50 ms", 2, 1e3),
    ("p99_us", "p99 ms", 2, 1e3),
];

const FANOUT: Columns = &[
    ("server_cpu_us", "server CPU µs a delivery", 2, 1.0),
    ("server_user_us", "of it user", 2, 1.0),
    ("p50_us", "p50 ms", 3, 1e3),
    ("p99_us", "p99 ms", 3, 1e3),
    ("max_us", "max ms", 1, 1e3),
    ("messages_per_second", "messages/s", 0, 1.0),
    ("deliveries_per_second", "deliveries/s", 0, 1.0),
    ("server_busy", "server %", 0, 0.01),
    ("client_busy", "generator %", 0, 0.01),
];

/// Of runs that are about the server's memory.
const COURSE: Columns = &[
    ("published", "messages", 0, 1.0),
    ("rss_before", "resident MiB before", 1, 1_048_576.0),
    ("rss_half", "half-way", 1, 1_048_576.0),
    ("rss_after", "after", 1, 1_048_576.0),
    ("rss_peak", "at most", 1, 1_048_576.0),
    ("stalled", "did not read", 0, 1.0),
    ("let_go", "of them let go", 0, 1.0),
];

/// Of clients that come back: `redis` counts what Redis was asked meanwhile.
const RESUME: Columns = &[
    ("clients", "clients", 0, 1.0),
    ("messages", "messages each", 0, 1.0),
    ("cuts", "cuts", 0, 1.0),
    ("repeated", "twice", 0, 1.0),
    ("gaps", "gaps", 0, 1.0),
    ("seconds", "all were back in s", 2, 1.0),
    ("p50_us", "replay p50 ms", 1, 1e3),
    ("p99_us", "p99 ms", 1, 1e3),
    ("max_us", "max ms", 1, 1e3),
    ("calm.p99_us", "who stayed, p99 ms before", 1, 1e3),
    ("meanwhile.p99_us", "meanwhile", 1, 1e3),
    ("redis.fcall_ro", "reads from Redis", 0, 1.0),
];

/// What is compared between labels.
const COMPARED: Columns = &[
    ("server_cpu_us", "server CPU", 2, 1.0),
    ("p50_us", "p50", 2, 1.0),
    ("p99_us", "p99", 2, 1.0),
    ("deliveries_per_second", "deliveries/s", 2, 1.0),
];

/// Kinds of runs that share a table.
const KINDS: &[(&[&str], Columns)] = &[
    (&["connect"], CONNECT),
    (&["fanout", "cross", "inbound"], FANOUT),
    (&["avalanche", "jitter"], RESUME),
];

/// Prints the summary of a file.
pub(crate) fn run(arguments: &Summary) -> anyhow::Result<()> {
    let text = fs::read_to_string(&arguments.file)
        .with_context(|| format!("reading {}", arguments.file.display()))?;
    let summary = summarise(&text, &arguments.against)?;
    std::io::stdout().lock().write_all(summary.as_bytes()).context("standard output")
}

fn summarise(text: &str, against: &[(String, String)]) -> anyhow::Result<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str)
        .collect::<Result<Vec<Line>, _>>()
        .context("a line is no JSON object")?;
    let mut out = String::new();
    for (kinds, columns) in KINDS {
        let of_kind = |line: &&Line| kinds.contains(&text_of(line, "kind"));
        let chosen: Vec<_> = lines.iter().filter(of_kind).collect();
        table(&mut out, &chosen, columns);
    }
    let about_memory = |line: &&Line| line.contains_key("stalled") || line.contains_key("most");
    table(&mut out, &lines.iter().filter(about_memory).collect::<Vec<_>>(), COURSE);
    if !against.is_empty() {
        comparison(&mut out, &lines, against);
    }
    Ok(out)
}

fn table(out: &mut String, lines: &[&Line], columns: Columns) {
    if lines.is_empty() {
        return;
    }
    header(out, &["run", "rounds", "missing"], columns);
    for label in labels(lines) {
        let runs: Vec<_> = lines.iter().copied().filter(|line| label_of(line) == label).collect();
        let missing = missing(&runs);
        out.push_str(&format!("| {label} | {} | {missing} |", runs.len()));
        for (field, _, decimals, unit) in columns {
            let values = runs.iter().filter_map(|line| number(line, field)).collect();
            match median(values) {
                Some(value) => out.push_str(&format!(" {:.decimals$} |", value / unit)),
                None => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
    out.push('\n');
}

fn comparison(out: &mut String, lines: &[Line], against: &[(String, String)]) {
    let mut rows = String::new();
    for (label, base) in against {
        let cells: Vec<_> =
            COMPARED.iter().map(|column| ratio(lines, label, base, column.0)).collect();
        // What was not measured this time.
        if cells.iter().all(Option::is_none) {
            continue;
        }
        rows.push_str(&format!("| {label} | {base} |"));
        for (cell, (_, _, decimals, _)) in cells.iter().zip(COMPARED) {
            match cell {
                Some(ratio) => rows.push_str(&format!(" {ratio:.decimals$} |")),
                None => rows.push_str(" |"),
            }
        }
        rows.push('\n');
    }
    if !rows.is_empty() {
        header(out, &["run", "as a multiple of"], COMPARED);
        out.push_str(&rows);
        out.push('\n');
    }
}

/// The median of the rounds' ratios.
fn ratio(lines: &[Line], label: &str, base: &str, field: &str) -> Option<f64> {
    let of = |label: &str, round: Option<&Value>| {
        let same = |line: &&Line| label_of(line) == label && line.get("round") == round;
        lines.iter().find(same).and_then(|line| number(line, field))
    };
    let runs = lines.iter().filter(|line| label_of(line) == label);
    let ratios = runs.filter_map(|line| {
        Some(number(line, field)? / of(base, line.get("round")).filter(|base| *base > 0.0)?)
    });
    median(ratios.collect())
}

fn header(out: &mut String, first: &[&str], columns: Columns) {
    let names = first.iter().copied().chain(columns.iter().map(|column| column.1));
    let names: Vec<_> = names.collect();
    out.push_str(&format!("| {} |\n|{}\n", names.join(" | "), " --- |".repeat(names.len())));
}

/// Messages that were published and not received, and connections that were lost, over all rounds.
fn missing(runs: &[&Line]) -> String {
    let sum = |field: &str| runs.iter().filter_map(|line| number(line, field)).sum::<f64>();
    let gone = if runs.iter().any(|line| line.contains_key("held")) {
        sum("connections") - sum("held")
    } else {
        sum("expected") - sum("delivered") + sum("refused")
    };
    format!("{gone:.0}")
}

fn labels<'a>(lines: &[&'a Line]) -> Vec<&'a str> {
    let mut labels = Vec::new();
    for line in lines {
        let label = label_of(line);
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels
}

/// The label of a run; without one, its kind.
fn label_of(line: &Line) -> &str {
    match text_of(line, "label") {
        "" => text_of(line, "kind"),
        label => label,
    }
}

fn text_of<'a>(line: &'a Line, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A number; the field of an object in the line is `object.field`.
fn number(line: &Line, field: &str) -> Option<f64> {
    match field.split_once('.') {
        Some((object, field)) => line.get(object)?.get(field)?.as_f64(),
        None => line.get(field)?.as_f64(),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => values.get(middle).copied(),
        _ => Some(f64::midpoint(*values.get(middle - 1)?, *values.get(middle)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_paired_ratios() {
        let mut text = String::new();
        for (round, (limit, ws)) in [(5.0, 6.0), (10.0, 20.0), (4.0, 6.0)].into_iter().enumerate() {
            for (label, cpu) in [("limit", limit), ("ws", ws)] {
                text.push_str(&format!(
                    r#"{{"kind":"fanout","label":"{label}","round":{round},"server_cpu_us":{cpu},"#
                ));
                text.push_str("\"expected\":10,\"delivered\":9,\"refused\":0}\n");
            }
        }
        let summary = summarise(&text, &[("ws".to_owned(), "limit".to_owned())]).unwrap();
        assert!(summary.contains("| limit | 3 | 3 | 5.00 |"), "{summary}");
        assert!(summary.contains("| ws | 3 | 3 | 6.00 |"), "{summary}");
        // 1.2, 2.0 and 1.5.
        assert!(summary.contains("| ws | limit | 1.50 |"), "{summary}");
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
