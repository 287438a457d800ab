//! The report of a run: one JSON value, or a table.

use crate::load::Outcome;
use crate::options::Options;
use crate::replies::FLAGS;
use crate::results::CODES;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

pub struct Report<'a> {
    pub options: &'a Options,
    pub outcome: &'a Outcome,
    /// CPU time of this process, warm-up included, seconds.
    pub cpu_s: f64,
}

const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999)];

/// Returns the quantiles of latencies, or null if there are none.
fn latency_ms(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let quantiles = QUANTILES.map(|(name, at)| (name, histogram.value_at_quantile(at) as f64));
    let others = [("max", histogram.max() as f64), ("mean", histogram.mean())];
    let all = quantiles.into_iter().chain(others);
    all.map(|(name, ns)| (name.to_owned(), json!(rounded(ns / 1e6, 4))))
        .collect::<Map<_, _>>()
        .into()
}

fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

/// Returns the counts above 0 by name.
fn counts(names: &[&str], counts: &[u64]) -> Value {
    let seen = names.iter().zip(counts).filter(|(_, count)| **count > 0);
    seen.map(|(name, count)| ((*name).to_owned(), json!(count))).collect::<Map<_, _>>().into()
}

impl Report<'_> {
    fn calls_per_s(&self) -> f64 {
        self.outcome.results.codes[0] as f64 / self.outcome.counted.as_secs_f64()
    }

    /// Returns the number of calls that ended with a status that is not allowed.
    pub fn failed(&self) -> u64 {
        let codes = self.options.is_failure.iter().zip(self.outcome.results.codes);
        codes.filter(|(is_failure, _)| **is_failure).map(|(_, calls)| calls).sum()
    }

    fn cpu_us_per_call(&self) -> f64 {
        self.cpu_s / self.outcome.results.ended.max(1) as f64 * 1e6
    }

    /// Returns name and value of each figure.
    fn figures(&self) -> Vec<(&'static str, Value)> {
        let results = &self.outcome.results;
        let first_messages: Map<_, _> = CODES
            .iter()
            .zip(&results.messages)
            .filter(|(_, message)| !message.is_empty())
            .map(|(name, message)| ((*name).to_owned(), json!(message)))
            .collect();
        let answered_by: Vec<_> = results
            .answerers
            .iter()
            .filter(|answerer| answerer.calls > 0)
            .map(|answerer| {
                let version = String::from_utf8_lossy(&answerer.version);
                let role = answerer.role_name();
                json!({"version": version, "role": role, "calls": answerer.calls})
            })
            .collect();
        // The rows of messages from a file are unknown.
        let rows = self.options.bodies.is_none().then_some(self.options.spec.rows as f64);
        let allowed = self.outcome.streams_allowed;
        vec![
            ("calls_per_s", json!(rounded(self.calls_per_s(), 1))),
            ("rows_per_s", json!(rows.map(|rows| rounded(self.calls_per_s() * rows, 1)))),
            ("calls", json!(results.calls())),
            ("seconds", json!(rounded(self.outcome.counted.as_secs_f64(), 4))),
            ("statuses", counts(&CODES, &results.codes)),
            ("failed", json!(self.failed())),
            ("first_messages", first_messages.into()),
            ("latency_ms", latency_ms(&results.answered)),
            ("failure_ms", latency_ms(&results.failed)),
            ("answered_by", answered_by.into()),
            ("rows_flagged", counts(&FLAGS, &results.rows_flagged)),
            ("transparent_retries", json!(results.transparent_retries)),
            ("connections_lost", json!(results.connections_lost)),
            // Only if the server allows fewer streams than the options ask for.
            ("streams_allowed", json!(Some(allowed).filter(|&some| some < self.options.streams))),
            ("generator_us_per_call", json!(rounded(self.cpu_us_per_call(), 3))),
        ]
    }

    /// Returns all figures as one JSON object.
    pub fn json(&self) -> Value {
        let figures = self.figures().into_iter();
        figures.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
    }

    /// Returns a line for each figure that is neither empty nor 0.
    pub fn table(&self) -> String {
        let is_empty = |text: &str| ["", "0", "null"].contains(&text);
        self.figures()
            .iter()
            .map(|(name, value)| (name, plain_text(value)))
            .filter(|(_, text)| !is_empty(text))
            .map(|(name, text)| format!("{name:<23}{text}\n"))
            .collect()
    }
}

/// Writes a JSON value without quotes and brackets.
fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain_text).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name} {}", plain_text(value));
            fields.iter().map(field).collect::<Vec<_>>().join("  ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{ALWAYS, REPLY};
    use crate::results::{Results, UNAVAILABLE};
    use std::time::Duration;

    #[test]
    fn json_and_table_report_the_same_run() {
        let mut options = Options::defaults();
        options.spec.rows = 64;
        let mut results = Results::new(ALWAYS);
        for _ in 0..99 {
            let summary = results.summarize(REPLY);
            results.now_ns = 2_000_000;
            results.add_answer(0, summary);
        }
        results.add_failure(0, UNAVAILABLE, "full");
        let outcome = Outcome { results, counted: Duration::from_millis(100), streams_allowed: 9 };
        let report = Report { options: &options, outcome: &outcome, cpu_s: 1e-3 };

        let json = report.json();
        assert_eq!((&json["calls"], &json["failed"]), (&json!(100), &json!(1)));
        assert_eq!((&json["calls_per_s"], &json["rows_per_s"]), (&json!(990.0), &json!(63_360.0)));
        assert_eq!(json["statuses"], json!({"OK": 99, "UNAVAILABLE": 1}));
        let answered_by = json!([{"version": "3", "role": "production", "calls": 99}]);
        assert_eq!(json["answered_by"], answered_by);
        assert!((json["latency_ms"]["p50"].as_f64().unwrap() - 2.0).abs() < 0.01);

        let table = report.table();
        for part in ["990", "63360", "UNAVAILABLE 1", "full", "production  version 3", "allowed"] {
            assert!(table.contains(part), "{part}:\n{table}");
        }

        options.is_failure[UNAVAILABLE as usize] = false;
        assert_eq!(Report { options: &options, outcome: &outcome, cpu_s: 1e-3 }.failed(), 0);
    }
}
