//! A plan: how the usual calls of one model are answered at one revision of its deployment. Python
//! makes it (gateway/predict/turns.py), and both Python's thread and the I/O thread answer by it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::accel::answered_group::{AnswerTimes, AnsweredGroup};
use crate::accel::breadcrumb::{Breadcrumb, Thread};
use crate::accel::ids::BODY_BYTES;
use crate::accel::native_model::NativeModel;
use crate::accel::rows::ViewRows;
use crate::accel::score_code::ScoreRule;
use crate::accel::store_keys::StoreKeys;
use crate::accel::turn::{Draw, Group, IdParts};
use crate::calls::reply::Replies;

/// Rows of the larger run by which the cost of a row is measured.
const MEASURED_ROWS: usize = 64;
/// Runs of each size; the fastest counts, because other work can only delay a run.
const MEASURED_RUNS: usize = 3;
/// What a row costs beside its score, in ns: its share of an id, its reply and its record.
const OTHER_ROW_NS: i64 = 1_000;
/// What the copies of an input of a row cost, in ns.
const INPUT_NS: i64 = 2;

/// A read may take this share of the time until the latest deadline. This and BUDGET_ROWS are the numbers
/// of gateway/predict/feature_lookup.py.
const STORE_DEADLINE_SHARE: f64 = 0.3;
/// The budget of a read is for this many rows; more rows have more time in proportion.
const BUDGET_ROWS: f64 = 512.0;

/// The keys of prediction ids.
#[derive(Clone)]
pub struct IdKeys {
    /// The cluster's key.
    pub cluster: [u8; 32],
    /// Masks the scores.
    pub masking: [u8; 32],
    /// Seals the ids of models whose role is hidden.
    pub sealing: [u8; 32],
}

/// What must be known of a model to answer its usual calls. There is nothing of Python in it.
pub struct Plan {
    /// E and W of the calls, by which a call of an older shape is recognised.
    pub shape: (usize, usize),
    /// Hashed in front of a key for evidence.
    pub evidence_prefix: Vec<u8>,
    /// The draw of the holdout. None: there is none.
    pub holdout: Option<Draw>,
    /// The views that are read for each row, each with the position of its entity among the row's ids.
    pub views: Vec<(Arc<ViewRows>, usize)>,
    /// Whether a version reads the time of the request.
    pub request_time: bool,
    /// How long a read of BUDGET_ROWS rows may take.
    pub feature_ns: i64,
    /// Whether calls are refused if the store does not answer.
    pub features_required: bool,
    /// K, the number of scores of a row.
    pub outputs: usize,
    /// A prediction id without its MAC and its time.
    pub body: [u8; BODY_BYTES],
    /// How ids carry scores.
    pub rule: ScoreRule,
    /// Whether ids are sealed.
    pub sealed: bool,
    /// What callers see of the version: label and role.
    pub shown: (String, u32),
    /// What scores the matrix. None: Python scores.
    pub scorer: Option<Arc<NativeModel>>,
    /// The columns of the matrix that the scorer reads. None: all, as they are.
    pub columns: Option<Vec<usize>>,
    /// Marks the version while it is scored. None: the worker has no supervisor.
    pub breadcrumb: Option<Breadcrumb>,
}

/// How long runs of a plan's scorer take, with what each row costs beside its score.
#[derive(Clone, Copy, Debug)]
pub struct RunCost {
    /// Time of a run of one row.
    run_ns: i64,
    /// Time of each row among many.
    row_ns: i64,
}

impl RunCost {
    /// How many rows can be answered in `left_ns`.
    pub fn rows_within(&self, left_ns: i64) -> usize {
        ((left_ns - self.run_ns) / self.row_ns).max(0) as usize
    }

    /// How long an answer of so many rows takes.
    pub fn of_rows(&self, rows: usize) -> i64 {
        self.run_ns + self.row_ns * rows as i64
    }
}

impl Plan {
    /// Draw what follows from the keys of a group. Returns the latest deadline of its calls. None: a call
    /// is not the usual case, or is of another shape, or has a deadline before `earliest_ns`.
    pub fn assign(&self, group: &mut Group, earliest_ns: i64) -> Option<i64> {
        let shape = (group.columns.shape.entities, group.columns.shape.width());
        let late = group.columns.deadline_ns.iter().any(|deadline| *deadline < earliest_ns);
        if shape != self.shape || late {
            return None;
        }
        let latest_ns = *group.columns.deadline_ns.iter().max()?;
        group.assign(&self.evidence_prefix, self.holdout.as_ref()).then_some(latest_ns)
    }

    /// Append the store's keys of a group, view by view.
    pub fn put_keys(&self, group: &Group, keys: &mut StoreKeys) {
        for (view, position) in &self.views {
            for row in 0..group.rows() {
                view.put_key(group.entity(row, *position), keys);
            }
        }
    }

    /// Make the matrix of a group from what the store returned for its keys. False: the values do not fit.
    pub fn read(&self, group: &mut Group, values: &[Option<&[u8]>], now_ms: i64) -> bool {
        group.read(&self.views, values, now_ms, self.request_time)
    }

    /// Make the matrix of a group from the defaults of its views.
    pub fn read_defaults(&self, group: &mut Group, now_ms: i64) -> bool {
        group.read_defaults(&self.views, now_ms, self.request_time)
    }

    /// How many keys `put_keys` appends for so many rows.
    pub fn keys_of(&self, rows: usize) -> usize {
        rows * self.views.len()
    }

    /// How long a read of `rows` rows may take if the latest deadline is in `left_ns`.
    pub fn read_budget_ns(&self, rows: usize, left_ns: i64) -> i64 {
        let budget_ns = self.feature_ns as f64 * (rows as f64 / BUDGET_ROWS).max(1.0);
        budget_ns.min(left_ns as f64 * STORE_DEADLINE_SHARE) as i64
    }

    /// The (R, K) scores of a group whose matrix is made. None: Python has to score it.
    pub fn score(&self, group: &Group, thread: Thread) -> Option<Vec<f32>> {
        let scorer = self.scorer.as_ref()?;
        let (rows, matrix) = (group.rows(), group.inputs());
        let inputs = match &self.columns {
            None => matrix,
            Some(columns) => Cow::Owned(gathered(&matrix, rows, columns)?),
        };
        let fits = inputs.len() == rows * scorer.width() && scorer.outputs() == self.outputs;
        fits.then(|| self.run(scorer, &inputs, thread))
    }

    fn run(&self, scorer: &NativeModel, inputs: &[f32], thread: Thread) -> Vec<f32> {
        let run = || scorer.score(inputs);
        match &self.breadcrumb {
            Some(breadcrumb) => breadcrumb.mark(thread, run),
            None => run(),
        }
    }

    /// Measure the scorer, on the thread of Python's event loop. None: Python scores.
    pub fn measure(&self) -> Option<RunCost> {
        let scorer = self.scorer.as_ref()?;
        let fastest_ns = |rows: usize| {
            let matrix = drawn_inputs(rows * scorer.width());
            let run_ns = || {
                let began = Instant::now();
                std::hint::black_box(self.run(scorer, &matrix, Thread::Loop));
                began.elapsed().as_nanos() as i64
            };
            (0..MEASURED_RUNS).map(|_| run_ns()).min().unwrap_or_default()
        };
        Some(RunCost {
            run_ns: fastest_ns(1),
            row_ns: fastest_ns(MEASURED_ROWS) / MEASURED_ROWS as i64
                + OTHER_ROW_NS
                + INPUT_NS * scorer.width() as i64,
        })
    }

    /// Make the answers of a group that was assigned, read and scored: replies and record. `first` is the
    /// sequence number of its first call. None: the group was not assigned, read or scored.
    pub fn answer(
        &self,
        group: &mut Group,
        keys: &IdKeys,
        first: u32,
        times: &AnswerTimes,
    ) -> Option<(Replies, AnsweredGroup)> {
        let parts = IdParts {
            key: &keys.cluster,
            body: self.body,
            rule: self.rule,
            masking_key: &keys.masking,
            sealing_key: self.sealed.then_some(&keys.sealing),
        };
        let shown = Replies {
            model: group.columns.shape.model.clone(),
            version: self.shown.0.clone(),
            role: self.shown.1,
            outputs: self.outputs,
            ..Replies::default()
        };
        group.answer(&parts, first, times, shown)
    }
}

/// These columns of a matrix with so many rows. None: it has no such columns.
fn gathered(matrix: &[f32], rows: usize, columns: &[usize]) -> Option<Vec<f32>> {
    let width = matrix.len().checked_div(rows)?;
    if width == 0 || columns.iter().any(|column| *column >= width) {
        return None;
    }
    let mut inputs = Vec::with_capacity(rows * columns.len());
    for row in matrix.chunks_exact(width) {
        inputs.extend(columns.iter().map(|column| row[*column]));
    }
    Some(inputs)
}

/// Inputs of many sizes and both signs, always the same, so that rows lead to different leaves of trees.
fn drawn_inputs(count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // A sign, and a power of ten from .01 to 10,000.
        let sign = if state & 1 == 0 { 1.0 } else { -1.0 };
        sign * 10_f32.powf((state >> 40) as f32 / (1 << 24) as f32 * 6.0 - 2.0)
    };
    (0..count).map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use super::{gathered, RunCost};

    #[test]
    fn gathered_columns_are_those_of_each_row() {
        let matrix = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(gathered(&matrix, 2, &[2, 0]), Some(vec![3.0, 1.0, 6.0, 4.0]));
        assert_eq!(gathered(&matrix, 2, &[3]), None);
        assert_eq!(gathered(&[], 0, &[0]), None);
    }

    #[test]
    fn run_cost_allows_rows_for_the_time_that_is_left() {
        let cost = RunCost {
            run_ns: 10_000,
            row_ns: 2_000,
        };
        assert_eq!(cost.rows_within(50_000), 20);
        assert_eq!(cost.rows_within(9_000), 0);
        assert_eq!(cost.of_rows(20), 50_000);
    }
}
