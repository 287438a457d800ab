//! Usual calls whose features are read from the store, before and after the read.

use std::sync::Arc;

use crate::accel::breadcrumb::Thread;
use crate::accel::plan::Plan;
use crate::accel::turn::Group;
use crate::calls::call_columns::columns;
use crate::calls::shape::ModelShape;
use crate::io_thread::answering::{Answering, Published, State};
use crate::io_thread::shared::locked;
use crate::io_thread::usual_groups::{rows_of, unix_ns, FreshCall, Outcome, ReadingGroup};
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
    /// features. Python refuses the calls of such a model.
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
            let answered = published.zip(keys.as_ref()).is_some_and(|by| {
                let scores = plan.score(group, Thread::Io).unwrap_or_default();
                group.take_scores(scores, plan.outputs).is_ok()
                    && self.answer_scored(by, group, read_unix_ns, records, &mut outcome)
            });
            if !answered {
                outcome.left.extend(reading.calls);
            }
        }
        outcome
    }
}
