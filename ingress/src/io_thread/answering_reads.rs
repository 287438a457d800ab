//! Usual calls whose features are read from the store, before and after the read.

use std::sync::Arc;

use crate::accel::breadcrumb::Thread;
use crate::accel::plan::Plan;
use crate::accel::turn::Group;
use crate::calls::call_columns::columns;
use crate::calls::shape::ModelShape;
use crate::io_thread::answering::{Answering, Published, State};
use crate::io_thread::shared::locked;
use crate::io_thread::usual_groups::{
    by_shape, is_usual, rows_of, split_at_faults, unix_ns, FreshCall, Outcome, ReadingGroup,
};
use crate::sys::os::now_ns;

impl Answering {
    /// Draw what follows from the keys of calls whose features are to be read.
    pub(super) fn prepare_read(
        &self,
        published: &Published,
        shape: Arc<ModelShape>,
        calls: Vec<FreshCall>,
        outcome: &mut Outcome,
    ) {
        if calls.is_empty() {
            return;
        }
        let plan = Arc::clone(&published.plan);
        let mut group = Group::new(columns(shape, &calls, rows_of(&calls)));
        match plan.assign(&mut group, now_ns() + self.left_ns_min) {
            None => outcome.left.extend(calls),
            Some(latest_ns) => outcome.reading.push(ReadingGroup {
                number: published.number,
                plan,
                group,
                calls,
                latest_ns,
            }),
        }
    }

    /// Have calls wait for the next read, which can be sent at `free_ns` or sooner. Calls that are not the
    /// usual case are left, and so are those that would have no time to read then.
    pub(super) fn keep_waiting(
        &self,
        published: &Published,
        calls: Vec<FreshCall>,
        free_ns: i64,
        outcome: &mut Outcome,
    ) {
        let now_ns = now_ns();
        let (later, left): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| {
            let (rows, left_ns) = (call.1.call.rows as usize, call.1.deadline_ns - now_ns);
            let budget_ns = published.plan.read_budget_ns(rows, left_ns);
            is_usual(call, now_ns + self.left_ns_min) && now_ns + budget_ns >= free_ns
        });
        outcome.later.extend(later);
        outcome.left.extend(left);
    }

    /// Answer calls that have waited for a read, at a moment when the store is late: those that have waited
    /// for half of their budget without the store. The others are left.
    pub fn answer_waiting(&self, calls: Vec<FreshCall>) -> Outcome {
        let (mut outcome, now_ns) = (Outcome::default(), now_ns());
        {
            let state = locked(&self.state);
            for (shape, calls) in by_shape(calls) {
                let Some(published) = state.plans.get(&shape.model) else {
                    outcome.left.extend(calls);
                    continue;
                };
                let spent_ns = published.plan.feature_ns / 2;
                let (old, young): (Vec<_>, Vec<_>) = calls
                    .into_iter()
                    .partition(|(_, waiting)| now_ns - waiting.arrived_ns >= spent_ns);
                outcome.left.extend(young);
                self.prepare_read(published, shape, old, &mut outcome);
            }
        }
        let groups = std::mem::take(&mut outcome.reading);
        let answered = self.answer_without_store(groups);
        outcome.left.extend(answered.left);
        outcome.later.extend(answered.later);
        outcome.replies.extend(answered.replies);
        outcome
    }

    /// Answer the groups of a read, whose values the store has returned group by group.
    pub fn answer_read(
        &self,
        groups: Vec<ReadingGroup>,
        values: &[Option<&[u8]>],
        read_unix_ns: i64,
    ) -> Outcome {
        let mut first = 0;
        self.answer_groups(groups, read_unix_ns, |plan, group| {
            let last = first + plan.keys_of(group.rows());
            let own = values.get(first..last).unwrap_or_default();
            first = last;
            plan.read(group, own, read_unix_ns / 1_000_000)
        })
    }

    /// Answer groups that the store has not answered in time: with defaults, unless a model requires its
    /// features. The calls of such a model are left, and Python tries once more.
    pub fn answer_without_store(&self, groups: Vec<ReadingGroup>) -> Outcome {
        let read_unix_ns = unix_ns();
        self.answer_groups(groups, read_unix_ns, |plan, group| {
            !plan.features_required && plan.read_defaults(group, read_unix_ns / 1_000_000)
        })
    }

    /// Read, score and answer groups. A group is left if it cannot be read, its plan was withdrawn
    /// meanwhile, or a score is not finite.
    fn answer_groups(
        &self,
        groups: Vec<ReadingGroup>,
        read_unix_ns: i64,
        mut read: impl FnMut(&Plan, &mut Group) -> bool,
    ) -> Outcome {
        let mut state = locked(&self.state);
        let State {
            plans,
            keys,
            records,
        } = &mut *state;
        let mut outcome = Outcome::default();
        for mut reading in groups {
            let (plan, group) = (&reading.plan, &mut reading.group);
            let was_read = read(plan, group);
            let published = plans.get(&group.columns.shape.model);
            let published = published.filter(|now| was_read && now.number == reading.number);
            let Some(by) = published.zip(keys.as_ref()) else {
                outcome.left.extend(reading.calls);
                continue;
            };
            let scores = plan.score(group, Thread::Io).unwrap_or_default();
            if let Err(scores) = group.take_scores(scores, plan.outputs) {
                // Python finds what is wrong with a call. The others are read once more.
                let (failed, others) = split_at_faults(reading.calls, group, &scores, plan.outputs);
                outcome.left.extend(failed);
                outcome.later.extend(others);
            } else if !self.answer_scored(by, group, read_unix_ns, records, &mut outcome) {
                outcome.left.extend(reading.calls);
            }
        }
        outcome
    }
}
