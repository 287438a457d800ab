//! The calls of a turn, in groups by model, and what becomes of them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::accel::plan::Plan;
use crate::accel::turn::Group;
use crate::calls::call_queue::{WaitingCall, RANK_OF_CRITICALITY};
use crate::calls::reply::Replies;
use crate::calls::shape::ModelShape;

/// A call that was admitted in this turn, with its handle.
pub type FreshCall = (u64, WaitingCall);

/// What became of the calls of a turn.
#[derive(Default)]
pub struct Outcome {
    /// The replies, group by group.
    pub replies: Vec<Replies>,
    /// The groups whose features are to be read, in one read.
    pub reading: Vec<ReadingGroup>,
    /// The calls that wait for a later read.
    pub later: Vec<FreshCall>,
    /// The calls that Python has to answer.
    pub left: Vec<FreshCall>,
}

/// Calls of one model whose features are read from the store.
pub struct ReadingGroup {
    /// The number by which Python knows the plan.
    pub(super) number: u64,
    /// The plan by which the calls were assigned.
    pub plan: Arc<Plan>,
    /// The calls, assigned.
    pub group: Group,
    /// The calls as they came, for Python.
    pub calls: Vec<FreshCall>,
    /// Their latest deadline.
    pub latest_ns: i64,
}

/// The calls of a group with a score that is not finite, and the others. Without scores, all failed.
pub(super) fn split_at_faults(
    calls: Vec<FreshCall>,
    group: &Group,
    scores: &[f32],
    outputs: usize,
) -> (Vec<FreshCall>, Vec<FreshCall>) {
    let ends = group.columns.row_offsets.windows(2);
    let mut failed = ends.map(|ends| {
        let own = scores.get(ends[0] as usize * outputs..ends[1] as usize * outputs);
        own.is_none_or(|own| !own.iter().all(|score| score.is_finite()))
    });
    calls.into_iter().partition(|_| failed.next().unwrap_or(true))
}

/// Whether a call has a key or a request id, pins no version, and has enough time left.
pub(super) fn is_usual((_, waiting): &FreshCall, earliest_ns: i64) -> bool {
    let call = &waiting.call;
    let [_, id_lengths, ..] = call.parts();
    let keyed =
        call.sticky > 0 || call.request_id > 0 || id_lengths.first().is_some_and(|n| *n > 0);
    keyed && call.pin == 0 && waiting.deadline_ns >= earliest_ns
}

/// Calls of a lower rank are answered first.
pub(super) fn rank((_, waiting): &FreshCall) -> usize {
    RANK_OF_CRITICALITY[waiting.call.criticality as usize & 3]
}

/// Calls that are sorted by rank, in groups by rank and by the shape of their model.
pub(super) fn by_shape(calls: Vec<FreshCall>) -> Vec<(Arc<ModelShape>, Vec<FreshCall>)> {
    let mut groups: Vec<(Arc<ModelShape>, Vec<FreshCall>)> = Vec::new();
    for call in calls {
        let shape = &call.1.call.shape;
        let same = |(known, group): &&mut (Arc<ModelShape>, Vec<FreshCall>)| {
            Arc::ptr_eq(known, shape) && rank(&group[0]) == rank(&call)
        };
        match groups.iter_mut().find(same) {
            Some((_, group)) => group.push(call),
            None => groups.push((Arc::clone(shape), vec![call])),
        }
    }
    groups
}

pub(super) fn rows_of(calls: &[FreshCall]) -> usize {
    calls.iter().map(|(_, waiting)| waiting.call.rows as usize).sum()
}

/// Unix time in ns.
pub fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as i64
}
