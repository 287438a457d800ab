//! Usual calls, answered on the I/O thread without Python (decisions 0096 and 0100).
//!
//! Python publishes the plans of models that native code scores. At the end of a turn, the I/O thread
//! answers the calls of these models that came in the turn. If their features are in the feature store, it
//! reads them first. All other calls, and those for which there is no time or no room, go to Python.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::accel::answered_group::AnswerTimes;
use crate::accel::breadcrumb::Thread;
use crate::accel::plan::{IdKeys, Plan, RunCost};
use crate::accel::turn::Group;
use crate::calls::call_columns::columns;
use crate::calls::shape::ModelShape;
use crate::io_thread::answer_records::{AnswerRecord, ReadCounts, Records};
use crate::io_thread::shared::locked;
use crate::io_thread::store_connection::StoreState;
use crate::io_thread::usual_groups::{
    by_shape, is_usual, rank, rows_of, split_at_faults, unix_ns, FreshCall, Outcome,
};
use crate::sys::os::now_ns;

/// A turn answers calls for so long, by the costs that were measured when plans were published. Then other
/// connections are served, and Python answers the rest on its own processor. It is some 150 rows of a usual
/// model, and about as long as the pause between two polls of a busy thread.
pub const ANSWER_NS_MAX: i64 = 200_000;

/// The plan of a model, as it was published.
pub(super) struct Published {
    /// The number by which Python knows the plan.
    pub(super) number: u64,
    pub(super) plan: Arc<Plan>,
    cost: RunCost,
}

/// What Python has published, and the records of the answers. It is locked while calls are answered. So a
/// plan that was withdrawn answers no call from then on, and Python finds each answer of a second that is
/// over.
#[derive(Default)]
pub(super) struct State {
    pub(super) plans: HashMap<String, Published>,
    pub(super) keys: Option<IdKeys>,
    pub(super) records: Records,
}

/// What is answered here: plans, and records of the answers.
pub struct Answering {
    pub(super) state: Mutex<State>,
    /// Whether a plan is published. Without one, calls go to Python as they come.
    used: AtomicBool,
    /// The next sequence number of prediction ids, for both threads.
    sequence: AtomicU32,
    /// A call whose deadline is nearer than this gets no answer in time.
    pub(super) left_ns_min: i64,
}

impl Answering {
    /// Nothing is answered yet. `left_ns_min` is the time to a deadline that an answer needs.
    pub fn new(left_ns_min: i64) -> Answering {
        Answering {
            state: Mutex::default(),
            used: AtomicBool::new(false),
            sequence: AtomicU32::new(0),
            left_ns_min,
        }
    }

    /// Set the keys of prediction ids. Without them nothing is answered here.
    pub fn set_keys(&self, keys: IdKeys) {
        locked(&self.state).keys = Some(keys);
    }

    /// Publish the plan of a model, or withdraw it. When this returns, the plan before answers no call
    /// any more, and the records of its answers wait. A plan without a native model withdraws the plan
    /// before.
    pub fn publish(&self, model: String, plan: Option<(u64, Arc<Plan>)>) {
        let measured = plan.and_then(|(number, plan)| Some((number, plan.measure()?, plan)));
        let mut state = locked(&self.state);
        match measured {
            Some((number, cost, plan)) => {
                let published = Published {
                    number,
                    plan,
                    cost,
                };
                state.plans.insert(model, published);
            }
            None => {
                state.plans.remove(&model);
            }
        }
        self.used.store(!state.plans.is_empty(), Ordering::Relaxed);
    }

    /// Whether any call may be answered here.
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Take `count` sequence numbers, which wrap, and return the first.
    pub fn reserve(&self, count: u32) -> u32 {
        self.sequence.fetch_add(count, Ordering::Relaxed)
    }

    /// Take the records that wait, those of answers that are being given included.
    pub fn take_records(&self) -> Vec<AnswerRecord> {
        locked(&self.state).records.take()
    }

    /// Answer calls, in the order of their criticality, that take up to `left_ns`, which becomes less.
    pub fn answer(
        &self,
        mut calls: Vec<FreshCall>,
        store: StoreState,
        left_ns: &mut i64,
    ) -> Outcome {
        calls.sort_by_key(rank);
        let mut state = locked(&self.state);
        let mut outcome = Outcome::default();
        for (shape, calls) in by_shape(calls) {
            let State {
                plans,
                keys: Some(keys),
                records,
            } = &mut *state
            else {
                outcome.left.extend(calls);
                continue;
            };
            let Some(published) = plans.get(&shape.model) else {
                outcome.left.extend(calls);
                continue;
            };
            if published.plan.views.is_empty() {
                let usual = self.take_usual(published, calls, records, left_ns, &mut outcome.left);
                self.answer_usual((published, keys), shape, usual, records, &mut outcome);
                continue;
            }
            match store {
                StoreState::Away => outcome.left.extend(calls),
                StoreState::Busy(free_ns) => {
                    self.keep_waiting(published, calls, free_ns, &mut outcome);
                }
                StoreState::Free => {
                    let usual =
                        self.take_usual(published, calls, records, left_ns, &mut outcome.left);
                    self.prepare_read(published, shape, usual, &mut outcome);
                }
            }
        }
        outcome
    }

    /// Take the usual calls of one model, as many as there is time and room for. The others are left: each
    /// would make its group a batch.
    fn take_usual(
        &self,
        published: &Published,
        mut calls: Vec<FreshCall>,
        records: &Records,
        left_ns: &mut i64,
        left: &mut Vec<FreshCall>,
    ) -> Vec<FreshCall> {
        let earliest_ns = now_ns() + self.left_ns_min;
        if !calls.iter().all(|call| is_usual(call, earliest_ns)) {
            let (usual, others): (Vec<_>, Vec<_>) =
                calls.into_iter().partition(|call| is_usual(call, earliest_ns));
            left.extend(others);
            calls = usual;
        }
        // Leave what there is no time for, and everything if Python does not take the records.
        let rows_max = if records.has_room() { published.cost.rows_within(*left_ns) } else { 0 };
        let (mut taken, mut rows) = (0, 0);
        while let Some((_, waiting)) = calls.get(taken) {
            if rows + waiting.call.rows as usize > rows_max {
                break;
            }
            rows += waiting.call.rows as usize;
            taken += 1;
        }
        left.extend(calls.split_off(taken));
        if taken > 0 {
            *left_ns -= published.cost.of_rows(rows);
        }
        calls
    }

    /// Answer usual calls of a model that reads no view. A call without finite scores is left, and the
    /// others are scored again.
    fn answer_usual(
        &self,
        by: (&Published, &IdKeys),
        shape: Arc<ModelShape>,
        calls: Vec<FreshCall>,
        records: &mut Records,
        outcome: &mut Outcome,
    ) {
        if calls.is_empty() {
            return;
        }
        let (plan, unix_ns) = (&by.0.plan, unix_ns());
        let mut group = Group::new(columns(shape, &calls, rows_of(&calls)));
        let scores = plan
            .assign(&mut group, now_ns() + self.left_ns_min)
            .filter(|_| plan.read(&mut group, &[], unix_ns / 1_000_000))
            .and_then(|_| plan.score(&group, Thread::Io))
            .unwrap_or_default();
        if let Err(scores) = group.take_scores(scores, plan.outputs) {
            let (failed, others) = split_at_faults(calls, &group, &scores, plan.outputs);
            outcome.left.extend(failed);
            let shape = Arc::clone(&group.columns.shape);
            return self.answer_usual(by, shape, others, records, outcome);
        }
        if !self.answer_scored(by, &mut group, unix_ns, records, outcome) {
            outcome.left.extend(calls);
        }
    }

    /// Make the replies to a group that was scored, and keep the record. False: it was not assigned.
    pub(super) fn answer_scored(
        &self,
        (published, keys): (&Published, &IdKeys),
        group: &mut Group,
        read_unix_ns: i64,
        records: &mut Records,
        outcome: &mut Outcome,
    ) -> bool {
        let times = AnswerTimes {
            unix_ns: unix_ns(),
            read_unix_ns,
            answered_ns: now_ns(),
        };
        let (rows, first) = (group.rows(), self.reserve(group.calls() as u32));
        let Some((replies, record)) = published.plan.answer(group, keys, first, &times) else {
            return false;
        };
        outcome.replies.push(replies);
        let read = ReadCounts::new(group);
        records.add(published.number, times.unix_ns, rows, &read, &record);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::ids::BODY_BYTES;
    use crate::accel::native_model::step::Description;
    use crate::accel::native_model::NativeModel;
    use crate::accel::score_code::ScoreRule;
    use crate::accel::trees::outputs::{Outputs, Transform};
    use crate::accel::trees::tree::{Node, Tree};
    use crate::accel::trees::Trees;
    use crate::calls::admission::Admission;
    use crate::calls::call_queue::CallQueue;
    use crate::calls::shape::Call;

    const FAR_NS: i64 = i64::MAX / 4;
    const SECOND_NS: i64 = 1_000_000_000;

    /// A plan of one input and one entity that scores each row .5.
    fn plan() -> Arc<Plan> {
        let leaf = Tree {
            nodes: vec![Node::Leaf(0)],
            targets: vec![0],
            weights: vec![0.5],
        };
        let outputs = Outputs::new(1, None, Vec::new(), Transform::Identity).expect("one sum");
        let trees = Description {
            kind: "trees".to_owned(),
            sources: vec![0],
            integers: Vec::new(),
            numbers: Vec::new(),
            trees: Trees::new(1, vec![leaf], outputs).map(Arc::new),
        };
        Arc::new(Plan {
            shape: (1, 1),
            evidence_prefix: vec![1],
            holdout: None,
            views: Vec::new(),
            feature_ns: 1_000_000,
            features_required: false,
            request_time: false,
            outputs: 1,
            body: [0; BODY_BYTES],
            rule: ScoreRule {
                probability: true,
                threshold: 0.5,
            },
            sealed: false,
            shown: ("1".to_owned(), 1),
            scorer: NativeModel::new(1, vec![trees]).map(Arc::new).ok(),
            columns: None,
            breadcrumb: None,
        })
    }

    /// Answers of the model m by a plan with the number 7.
    fn answering() -> Answering {
        let answering = Answering::new(200_000);
        answering.set_keys(IdKeys {
            cluster: [1; 32],
            masking: [2; 32],
            sealing: [3; 32],
        });
        answering.publish("m".to_owned(), Some((7, plan())));
        answering
    }

    /// Calls of one row each, changed by `change`, which knows their number.
    fn calls(count: usize, change: impl Fn(usize, &mut Call)) -> Vec<FreshCall> {
        let shape = Arc::new(ModelShape {
            model: "m".to_owned(),
            entities: 1,
            input_defaults: vec![0.0],
            ..ModelShape::default()
        });
        let mut queue = CallQueue::new(Admission::new(1 << 20, 90, 50));
        let admit = |number| {
            let mut call = Call {
                shape: Arc::clone(&shape),
                rows: 1,
                criticality: 0,
                sticky: 0,
                request_id: 0,
                pin: 0,
                any_version: false,
                block: vec![0, 0, 0, 0, 1, b'S'],
            };
            change(number, &mut call);
            queue.admit_aside(call, now_ns(), FAR_NS).expect("there is room")
        };
        (0..count).map(admit).collect()
    }

    #[test]
    fn answering_answers_usual_calls_and_leaves_the_others() {
        let pinned = |number: usize, call: &mut Call| match number {
            1 => (call.pin, call.block) = (1, vec![0, 0, 0, 0, 1, b'S', b'9']),
            2 => call.block = vec![0, 0, 0, 0, 0],
            _ => {}
        };
        let answering = answering();
        let outcome = answering.answer(calls(4, pinned), StoreState::Away, &mut { SECOND_NS });
        assert_eq!(outcome.left.iter().map(|(handle, _)| *handle as u32).max(), Some(2));
        assert_eq!(outcome.left.len(), 2);
        assert_eq!(outcome.replies[0].scores, [0.5, 0.5]);
        let records = answering.take_records();
        assert_eq!((records[0].plan, records[0].rows), (7, 2));
        assert!(answering.take_records().is_empty());
    }

    #[test]
    fn answering_leaves_calls_without_time_in_the_order_of_criticality() {
        let sheddable_first = |number: usize, call: &mut Call| call.criticality = 3 - number as u8;
        let outcome = answering().answer(calls(3, sheddable_first), StoreState::Away, &mut 0);
        let left: Vec<u8> = outcome.left.iter().map(|(_, call)| call.call.criticality).collect();
        assert_eq!(left, [1, 2, 3]);
        assert!(outcome.replies.is_empty());
    }

    #[test]
    fn answering_answers_as_many_calls_as_there_is_time_for() {
        let (answering, mut left_ns) = (answering(), 10_000_000);
        let outcome = answering.answer(calls(10_000, |_, _| ()), StoreState::Away, &mut left_ns);
        let answered = outcome.replies[0].handles.len();
        assert!((1..10_000).contains(&answered));
        assert_eq!(outcome.left.len(), 10_000 - answered);
        assert_eq!(answering.answer(outcome.left, StoreState::Away, &mut left_ns).replies.len(), 0);
    }

    #[test]
    fn answering_leaves_every_call_of_a_plan_that_was_withdrawn() {
        let answering = answering();
        answering.publish("m".to_owned(), None);
        assert_eq!(
            answering.answer(calls(2, |_, _| ()), StoreState::Away, &mut { SECOND_NS }).left.len(),
            2
        );
    }
}
