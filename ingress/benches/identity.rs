//! Measures what a call costs to find out whose token it has.
//!
//! `usual`: a connection's header is that of its last call. `changed`: two callers share a connection,
//! as behind a proxy, so each header is hashed and looked up among a thousand tokens.
//!
//!     cargo bench --no-default-features --bench identity
//!
//! It prints JSON: nanoseconds of one call in the fastest of the rounds.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::time::Instant;

use turnout_ingress::calls::callers::{
    token_digest, Authorization, CallerRules, Callers, ConnCaller, Directory,
};
use turnout_ingress::calls::shape::ModelShapes;

const CALLERS: u32 = 1_000;
const CALLS: u32 = 200_000;
const ROUNDS: usize = 9;
const FOREVER_NS: i64 = i64::MAX;

fn token(number: u32) -> String {
    format!("{number:064x}")
}

fn callers() -> Callers {
    let rules = |number: u32| CallerRules {
        name: format!("caller-{number}"),
        models: None,
        pins: HashSet::new(),
        rates: [0; 3],
        connections: 0,
        streams: 0,
    };
    let directory = Directory {
        callers: (0..CALLERS).map(rules).collect(),
        tokens: (0..CALLERS)
            .map(|number| (token_digest(token(number).as_bytes()), (number + 1, FOREVER_NS)))
            .collect(),
        names: HashMap::new(),
        verifies: true,
    };
    let mut callers = Callers::default();
    callers.replace(directory, &ModelShapes::default());
    callers
}

/// Nanoseconds of a call whose headers come in turn.
fn cost_ns(callers: &mut Callers, headers: &[String]) -> f64 {
    let mut conn = ConnCaller::default();
    let mut rounds = [0.0; ROUNDS];
    for round in &mut rounds {
        let began = Instant::now();
        for call in 0..CALLS as usize {
            let header = black_box(headers[call % headers.len()].as_bytes());
            let authorization = callers.authorization(&mut conn, header, call as i64);
            assert!(matches!(authorization, Authorization::Known(_)));
            let caller = callers.caller_of(&conn, authorization);
            black_box(&caller);
        }
        *round = began.elapsed().as_nanos() as f64 / f64::from(CALLS);
    }
    // Whatever else runs on the machine only makes a round slower.
    rounds.into_iter().fold(f64::INFINITY, f64::min)
}

fn main() {
    let mut callers = callers();
    let headers = [3, 700].map(|number| format!("Bearer {}", token(number)));
    let usual = cost_ns(&mut callers, &headers[..1]);
    let changed = cost_ns(&mut callers, &headers);
    println!("{{\"usual\": {usual:.1}, \"changed\": {changed:.1}}}");
}
