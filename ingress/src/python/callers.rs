//! The callers file as Python passes it to the I/O thread.

use crate::calls::callers::{CallerNumber, CallerRules, Directory, TokenDigest};

/// A caller: name, models, models with pins, (calls, rows, bytes) a second, (connections, open calls).
pub type CallerTuple = (String, Option<Vec<String>>, Vec<String>, [u64; 3], (u32, u32));

/// The directory of these callers, tokens (SHA-256, caller, expiry) and certificate names.
pub fn directory(
    callers: Vec<CallerTuple>,
    tokens: Vec<(TokenDigest, CallerNumber, i64)>,
    names: Vec<(String, CallerNumber)>,
    verifies: bool,
) -> Directory {
    let rules = |(name, models, pins, rates, (connections, streams)): CallerTuple| CallerRules {
        name,
        models: models.map(|names| names.into_iter().collect()),
        pins: pins.into_iter().collect(),
        rates,
        connections,
        streams,
    };
    let tokens = tokens.into_iter().map(|(key, caller, expires)| (key, (caller, expires)));
    Directory {
        callers: callers.into_iter().map(rules).collect(),
        tokens: tokens.collect(),
        names: names.into_iter().collect(),
        verifies,
    }
}
