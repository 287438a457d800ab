//! Usual calls, answered on the I/O thread without Python (decision 0096).
//!
//! Python publishes the plans of models whose calls have their inputs in the request and that native
//! code scores. At the end of a turn, the I/O thread answers the calls of these models that came in the
//! turn. All other calls, and those for which there is no time or no room, go to Python.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::accel::answered_group::{AnswerTimes, AnsweredGroup};
use crate::accel::breadcrumb::Thread;
use crate::accel::plan::{IdKeys, Plan, RunCost};
use crate::accel::turn::Group;
use crate::calls::call_queue::{columns, WaitingCall};
use crate::calls::reply::Replies;
use crate::calls::shape::ModelShape;
use crate::io_thread::shared::locked;
use crate::sys::os::now_ns;

/// Time of one turn in which calls are answered. Then other connections are served, and Python answers
/// the rest on its own processor. It is some 150 rows of a usual model, and as long as the pause between
/// two polls of a busy thread.
pub const ANSWER_NS_MAX: i64 = 200_000;
/// A record of answers is closed at so many rows, so that a fold can take records one by one.
const RECORD_ROWS_MAX: usize = 512;
/// While so many bytes of records wait for Python, Python answers. It is a third of a second at 100,000
/// calls/s.
const RECORD_BYTES_MAX: usize = 16 << 20;
const SECOND_NS: i64 = 1_000_000_000;

/// A call that was admitted in this turn, with its handle.
pub type FreshCall = (u64, WaitingCall);

/// The plan of a model, as it was published.
struct Published {
    /// The number by which Python knows the plan.
    number: u64,
    plan: Arc<Plan>,
    cost: RunCost,
}

/// What Python has published. It is locked while calls are answered, so a plan that was withdrawn answers
/// no call from then on.
#[derive(Default)]
struct Plans {
    by_model: HashMap<String, Published>,
    keys: Option<IdKeys>,
}

/// The answers of one plan in one second, for the recorder.
pub struct AnswerRecord {
    /// The number of the plan.
    pub plan: u64,
    /// Unix time of the first answer.
    pub unix_ns: i64,
    /// The rows of each group that was answered at once.
    pub group_rows: Vec<u32>,
    /// The rows of all groups.
    pub rows: usize,
    /// The calls of all groups, as one.
    pub calls: AnsweredGroup,
}

#[derive(Default)]
struct Records {
    waiting: Vec<AnswerRecord>,
    bytes: usize,
}

/// What is answered here: plans, and records of the answers.
pub struct Answering {
    plans: Mutex<Plans>,
    records: Mutex<Records>,
    /// The next sequence number of prediction ids, for both threads.
    sequence: AtomicU32,
    /// A call whose deadline is nearer than this gets no answer in time.
    left_ns_min: i64,
}

/// What became of the calls of a turn.
#[derive(Default)]
pub struct Outcome {
    /// The replies, group by group.
    pub replies: Vec<Replies>,
    /// The calls that Python has to answer.
    pub left: Vec<FreshCall>,
}

impl Answering {
    /// Nothing is answered yet. `left_ns_min` is the time to a deadline that an answer needs.
    pub fn new(left_ns_min: i64) -> Answering {
        Answering {
            plans: Mutex::default(),
            records: Mutex::default(),
            sequence: AtomicU32::new(0),
            left_ns_min,
        }
    }

    /// Set the keys of prediction ids. Without them nothing is answered here.
    pub fn set_keys(&self, keys: IdKeys) {
        locked(&self.plans).keys = Some(keys);
    }

    /// Publish the plan of a model, or withdraw it. When this returns, the plan before answers no call
    /// any more, and the records of its answers wait. A plan that Python scores is not published.
    pub fn publish(&self, model: String, plan: Option<(u64, Arc<Plan>)>) {
        let measured = plan.and_then(|(number, plan)| Some((number, plan.measure()?, plan)));
        let mut plans = locked(&self.plans);
        match measured {
            Some((number, cost, plan)) => {
                let published = Published {
                    number,
                    plan,
                    cost,
                };
                plans.by_model.insert(model, published);
            }
            None => {
                plans.by_model.remove(&model);
            }
        }
    }

    /// Take `count` sequence numbers, which wrap, and return the first.
    pub fn reserve(&self, count: u32) -> u32 {
        self.sequence.fetch_add(count, Ordering::Relaxed)
    }

    /// Take the records that wait.
    pub fn take_records(&self) -> Vec<AnswerRecord> {
        let mut records = locked(&self.records);
        records.bytes = 0;
        std::mem::take(&mut records.waiting)
    }

    /// Answer calls until the monotonic time `until_ns`.
    pub fn answer(&self, calls: Vec<FreshCall>, until_ns: i64) -> Outcome {
        let plans = locked(&self.plans);
        let mut outcome = Outcome::default();
        for (shape, calls) in by_shape(calls) {
            match (plans.by_model.get(&shape.model), &plans.keys) {
                (Some(published), Some(keys)) => {
                    self.answer_model(published, keys, shape, calls, until_ns, &mut outcome);
                }
                _ => outcome.left.extend(calls),
            }
        }
        outcome
    }

    /// Answer the calls of one model, as many as there is time for.
    fn answer_model(
        &self,
        published: &Published,
        keys: &IdKeys,
        shape: Arc<ModelShape>,
        calls: Vec<FreshCall>,
        until_ns: i64,
        outcome: &mut Outcome,
    ) {
        // Leave calls that are not the usual case: each would make its group a batch.
        let (began_ns, mut calls) = (now_ns(), calls);
        let earliest_ns = began_ns + self.left_ns_min;
        if !calls.iter().all(|call| is_usual(call, earliest_ns)) {
            let (usual, others): (Vec<_>, Vec<_>) =
                calls.into_iter().partition(|call| is_usual(call, earliest_ns));
            outcome.left.extend(others);
            calls = usual;
        }
        // Leave what there is no time for, and everything if Python does not take the records.
        let rows_max = if locked(&self.records).bytes < RECORD_BYTES_MAX {
            published.cost.rows_within(until_ns - began_ns)
        } else {
            0
        };
        let (mut taken, mut rows) = (0, 0);
        while let Some((_, waiting)) = calls.get(taken) {
            if rows + waiting.call.rows as usize > rows_max {
                break;
            }
            rows += waiting.call.rows as usize;
            taken += 1;
        }
        outcome.left.extend(calls.split_off(taken));
        if calls.is_empty() {
            return;
        }
        // Score the others. A call without finite scores is left, and the others are scored again.
        let (plan, unix_ns) = (&published.plan, unix_ns());
        let mut group = Group::new(columns(shape, &calls, rows));
        let scores = plan
            .assign(&mut group, earliest_ns)
            .filter(|_| group.read(&[], &[], unix_ns / 1_000_000, &[]))
            .and_then(|_| plan.score(&group, Thread::Io))
            .unwrap_or_default();
        if let Err(scores) = group.take_scores(scores, plan.outputs) {
            let (failed, others) = split_at_faults(calls, &group, &scores, plan.outputs);
            outcome.left.extend(failed);
            if !others.is_empty() {
                let shape = Arc::clone(&group.columns.shape);
                self.answer_model(published, keys, shape, others, until_ns, outcome);
            }
            return;
        }
        // Make the replies, and keep the record.
        let times = AnswerTimes {
            unix_ns,
            read_unix_ns: unix_ns,
            answered_ns: now_ns(),
        };
        let first = self.reserve(calls.len() as u32);
        match plan.answer(&mut group, keys, first, &times) {
            Some((replies, record)) => {
                outcome.replies.push(replies);
                locked(&self.records).add(published.number, unix_ns, rows, &record);
            }
            None => outcome.left.extend(calls),
        }
    }
}

impl Records {
    /// Add answered calls to the open record of their plan and second, or begin a record.
    fn add(&mut self, plan: u64, unix_ns: i64, rows: usize, calls: &AnsweredGroup) {
        self.bytes += calls.bytes();
        let newest = self.waiting.iter_mut().rev().find(|record| record.plan == plan);
        let open = newest.filter(|record| {
            record.unix_ns / SECOND_NS == unix_ns / SECOND_NS
                && record.rows + rows <= RECORD_ROWS_MAX
        });
        match open {
            Some(record) => {
                record.calls.append(calls);
                record.rows += rows;
                record.group_rows.push(rows as u32);
            }
            None => {
                let mut all = AnsweredGroup::empty(calls.times());
                all.append(calls);
                self.waiting.push(AnswerRecord {
                    plan,
                    unix_ns,
                    group_rows: vec![rows as u32],
                    rows,
                    calls: all,
                });
            }
        }
    }
}

/// The calls of a group with a score that is not finite, and the others. Without scores, all failed.
fn split_at_faults(
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
fn is_usual((_, waiting): &FreshCall, earliest_ns: i64) -> bool {
    let call = &waiting.call;
    let [_, id_lengths, ..] = call.parts();
    let keyed =
        call.sticky > 0 || call.request_id > 0 || id_lengths.first().is_some_and(|n| *n > 0);
    keyed && call.pin == 0 && waiting.deadline_ns >= earliest_ns
}

/// The calls by the shape of their model, in the order in which they came.
fn by_shape(calls: Vec<FreshCall>) -> Vec<(Arc<ModelShape>, Vec<FreshCall>)> {
    let mut groups: Vec<(Arc<ModelShape>, Vec<FreshCall>)> = Vec::new();
    for call in calls {
        let shape = &call.1.call.shape;
        match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, shape)) {
            Some((_, group)) => group.push(call),
            None => groups.push((Arc::clone(shape), vec![call])),
        }
    }
    groups
}

fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as i64
}
