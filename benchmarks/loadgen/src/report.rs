//! What is told at the end: one JSON value, or a table.

use crate::options::Options;
use crate::order::Order;
use crate::replies::FLAGS;
use crate::tally::{CODES, Tally};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// A whole run.
pub struct Run<'a> {
    pub options: &'a Options,
    pub tally: &'a Tally,
    pub counted_s: f64,
    /// CPU of this process, warm-up included.
    pub cpu_s: f64,
    /// Calls a connection may have open, where the server allows fewer than were asked for.
    pub streams_allowed: Option<u64>,
}

const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
];

fn ms(ns: f64) -> f64 {
    (ns / 100.0).round() / 1e4
}

fn times(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut told = Map::new();
    for (name, quantile) in QUANTILES {
        told.insert(
            name.into(),
            json!(ms(histogram.value_at_quantile(quantile) as f64)),
        );
    }
    told.insert("max".into(), json!(ms(histogram.max() as f64)));
    told.insert("mean".into(), json!(ms(histogram.mean())));
    Value::Object(told)
}

fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

impl Run<'_> {
    fn answered_per_s(&self) -> f64 {
        self.tally.codes[0] as f64 / self.counted_s
    }

    /// Calls that ended with a status that was not allowed.
    pub fn failed(&self) -> u64 {
        (1..CODES.len())
            .filter(|&code| !self.options.allowed[code])
            .map(|code| self.tally.codes[code])
            .sum()
    }

    fn us_per_call(&self) -> f64 {
        self.cpu_s / self.tally.ended.max(1) as f64 * 1e6
    }

    /// The run as one JSON value.
    pub fn json(&self) -> Value {
        let tally = self.tally;
        let named = |values: &[u64], names: &[&str]| -> Map<String, Value> {
            let seen = names.iter().zip(values).filter(|(_, count)| **count > 0);
            seen.map(|(name, count)| ((*name).to_owned(), json!(count)))
                .collect()
        };
        let words: Map<String, Value> = CODES
            .iter()
            .zip(&tally.words)
            .filter(|(_, words)| !words.is_empty())
            .map(|(name, words)| ((*name).to_owned(), json!(words)))
            .collect();
        let answered_by: Vec<Value> = tally
            .kinds
            .iter()
            .filter(|kind| kind.calls > 0)
            .map(|kind| {
                let version = String::from_utf8_lossy(&kind.version);
                json!({"version": version, "role": kind.role_name(), "calls": kind.calls})
            })
            .collect();
        json!({
            "asked": self.asked(),
            "seconds": rounded(self.counted_s, 4),
            "calls": tally.calls(),
            "failed": self.failed(),
            "calls_per_s": rounded(self.answered_per_s(), 1),
            "rows_per_s": self.rows().map(|rows| rounded(self.answered_per_s() * rows, 1)),
            "statuses": named(&tally.codes, &CODES),
            "first_words": words,
            "latency_ms": times(&tally.answered),
            "failure_ms": times(&tally.failed),
            "answered_by": answered_by,
            "rows_flagged": named(&tally.flagged, &FLAGS),
            "sent_again": tally.sent_again,
            "connections_lost": tally.connections_lost,
            "streams_allowed": self.streams_allowed,
            "generator_us_per_call": rounded(self.us_per_call(), 3),
        })
    }

    /// Rows in a call, where it was made here.
    fn rows(&self) -> Option<f64> {
        self.options
            .bodies
            .is_none()
            .then_some(self.options.recipe.rows as f64)
    }

    fn asked(&self) -> Value {
        let options = self.options;
        let order = match options.order {
            Order::Distinct => "distinct".to_owned(),
            Order::Uniform => "uniform".to_owned(),
            Order::Zipf(exponent) => format!("zipf:{exponent}"),
        };
        json!({
            "target": options.target,
            "method": options.method,
            "model": options.recipe.model,
            "rows": self.rows(),
            "order": order,
            "connections": options.connections,
            "streams": options.streams,
            "messages": options.messages,
            "rate": options.rate,
            "arrivals": options.rate.map(|_| if options.poisson { "poisson" } else { "even" }),
            "warm_s": options.warm,
            "timeout_ms": options.timeout_ms,
            "threads": options.threads,
            "seed": options.seed,
        })
    }

    /// The run as people read it.
    pub fn table(&self) -> String {
        let tally = self.tally;
        let mut out = String::new();
        let mut line = |name: &str, text: String| {
            let _ = writeln!(out, "{name:<14}{text}");
        };
        let rate = match self.options.rate {
            Some(rate) => format!("{} of {} asked", count(self.answered_per_s()), count(rate)),
            None => count(self.answered_per_s()),
        };
        line("answered/s", rate);
        if let Some(rows) = self.rows().filter(|rows| *rows > 1.0) {
            line("rows/s", count(self.answered_per_s() * rows));
        }
        line(
            "calls",
            format!("{} in {:.2} s", count(tally.calls() as f64), self.counted_s),
        );
        for (name, histogram) in [
            ("answers, ms", &tally.answered),
            ("failures, ms", &tally.failed),
        ] {
            if !histogram.is_empty() {
                line(name, spread(histogram));
            }
        }
        for (place, name) in CODES
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(at, _)| tally.codes[*at] > 0)
        {
            line(
                name,
                format!(
                    "{}  {}",
                    count(tally.codes[place] as f64),
                    tally.words[place]
                ),
            );
        }
        for kind in tally.kinds.iter().filter(|kind| kind.calls > 0) {
            let version = String::from_utf8_lossy(&kind.version);
            line(
                "answered by",
                format!(
                    "{version} {}: {}",
                    kind.role_name(),
                    count(kind.calls as f64)
                ),
            );
        }
        for (name, rows) in FLAGS
            .iter()
            .zip(tally.flagged)
            .filter(|(_, rows)| *rows > 0)
        {
            line("rows", format!("{name}: {}", count(rows as f64)));
        }
        for (name, number) in [
            ("sent again", tally.sent_again),
            ("connections", tally.connections_lost),
        ] {
            if number > 0 {
                let words = if name == "connections" {
                    " lost"
                } else {
                    ": never looked at"
                };
                line(name, format!("{}{words}", count(number as f64)));
            }
        }
        if let Some(allowed) = self.streams_allowed {
            line(
                "note",
                format!("the server allows {allowed} calls a connection"),
            );
        }
        line(
            "generator",
            format!("{:.2} us of CPU a call", self.us_per_call()),
        );
        out
    }
}

fn spread(histogram: &Histogram<u64>) -> String {
    let mut text = String::new();
    for (name, quantile) in QUANTILES {
        let _ = write!(
            text,
            "{name} {:.3}  ",
            histogram.value_at_quantile(quantile) as f64 / 1e6
        );
    }
    let _ = write!(text, "max {:.3}", histogram.max() as f64 / 1e6);
    text
}

/// 1234567 as 1,234,567.
fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{Times, UNAVAILABLE, Window};

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0.0, 999.0, 1e3, 1_234_567.0].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn a_run_is_told_both_ways() {
        let mut options = Options {
            target: "a:1".into(),
            ..Options::default()
        };
        options.recipe.rows = 64;
        let mut tally = Tally::new(
            Window {
                from_ns: 0,
                to_ns: 100,
                by_end: false,
            },
            true,
        );
        for _ in 0..99 {
            let heard = tally.hear(b"\x1a\x017\x20\x02");
            tally.answer(Times::default(), 2_000_000, heard);
        }
        tally.fail(Times::default(), 500_000, UNAVAILABLE, "full");
        let run = Run {
            options: &options,
            tally: &tally,
            counted_s: 0.1,
            cpu_s: 1e-3,
            streams_allowed: Some(9),
        };
        let told = run.json();
        assert_eq!((&told["calls"], &told["failed"]), (&json!(100), &json!(1)));
        assert_eq!(
            (&told["calls_per_s"], &told["rows_per_s"]),
            (&json!(990.0), &json!(63_360.0))
        );
        assert_eq!(told["statuses"], json!({"OK": 99, "UNAVAILABLE": 1}));
        assert_eq!(
            told["answered_by"],
            json!([{"version": "7", "role": "canary", "calls": 99}])
        );
        assert!((told["latency_ms"]["p50"].as_f64().unwrap() - 2.0).abs() < 0.01);
        let table = run.table();
        for words in [
            "990",
            "63,360",
            "UNAVAILABLE",
            "full",
            "7 canary: 99",
            "allows 9",
        ] {
            assert!(table.contains(words), "{words}:\n{table}");
        }
        options.allowed[14] = true;
        let run = Run {
            options: &options,
            tally: &tally,
            counted_s: 0.1,
            cpu_s: 1e-3,
            streams_allowed: None,
        };
        assert_eq!(run.failed(), 0);
    }
}
