//! `turnout_ingress.Turn` and what belongs to it: all calls that were handed over at once, which
//! gateway/predict/turns.py answers in one pass.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::answered_group::AnsweredGroup;
use super::columns::columns_tuple;
use super::io_thread::IngressThread;
use super::rows::PyViewRows;
use super::store_keys::PyStoreKeys;
use super::trees::Trees;
use crate::accel::answered_group::AnswerTimes;
use crate::accel::ids::BODY_BYTES;
use crate::accel::rows::ViewRows;
use crate::accel::score_code::ScoreRule;
use crate::accel::store_keys::StoreKeys;
use crate::accel::trees;
use crate::accel::turn::{Draw, Group, IdParts};
use crate::calls::reply::Replies;

/// What one pass must know of a model at one revision.
#[pyclass(frozen)]
struct ModelPlan {
    /// E and W of the calls, by which a call of an older shape is recognised.
    shape: (usize, usize),
    evidence_prefix: Vec<u8>,
    holdout: Option<Draw>,
    views: Vec<(Py<PyViewRows>, usize)>,
    outputs: usize,
    body: [u8; BODY_BYTES],
    rule: ScoreRule,
    sealed: bool,
    /// What callers see of the version: label and role.
    shown: (String, u32),
    /// What scores the matrix as it is. None: Python scores.
    trees: Option<Py<Trees>>,
    /// The byte that is 1 during a run (gateway/isolation/breadcrumbs.py). None: there is none.
    breadcrumb: Option<PyBuffer<u8>>,
}

#[pymethods]
impl ModelPlan {
    /// `holdout` is (prefix, share in basis points), `rule` (whether the first output is a probability,
    /// the threshold of decisions), `shown` (label, role). `breadcrumb` is a writable byte.
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        shape: (usize, usize),
        evidence_prefix: Vec<u8>,
        holdout: Option<(Vec<u8>, u64)>,
        views: Vec<(Py<PyViewRows>, usize)>,
        outputs: usize,
        body: &[u8],
        rule: (bool, f64),
        sealed: bool,
        shown: (String, u32),
        trees: Option<Py<Trees>>,
        breadcrumb: Option<PyBuffer<u8>>,
    ) -> PyResult<ModelPlan> {
        if views.iter().any(|(_, position)| *position >= shape.0) || outputs == 0 {
            return Err(PyValueError::new_err("a view's entity is not among those of a row"));
        }
        let body = body.try_into().map_err(|_| PyValueError::new_err("a body of other length"))?;
        Ok(ModelPlan {
            shape,
            evidence_prefix,
            holdout: holdout.map(|(prefix, share_bp)| Draw {
                prefix,
                share_bp,
            }),
            views,
            outputs,
            body,
            rule: ScoreRule {
                probability: rule.0,
                threshold: rule.1,
            },
            sealed,
            shown,
            trees,
            breadcrumb,
        })
    }
}

impl ModelPlan {
    /// Run something while the byte that outlives a crash is 1.
    fn marked<T>(&self, py: Python<'_>, run: impl FnOnce() -> T) -> T {
        let cells = self.breadcrumb.as_ref().and_then(|buffer| buffer.as_mut_slice(py));
        let cell = cells.and_then(|cells| cells.first());
        cell.inspect(|cell| cell.set(1));
        let result = run();
        cell.inspect(|cell| cell.set(0));
        result
    }
}

/// The calls that were handed over at once, in groups by model.
#[pyclass]
struct Turn {
    groups: Vec<Group>,
    plans: Vec<Option<Py<ModelPlan>>>,
}

#[pymethods]
impl Turn {
    /// The model and the number of calls of each group.
    fn groups(&self) -> Vec<(&str, usize)> {
        self.groups.iter().map(|group| (&*group.columns.shape.model, group.calls())).collect()
    }

    /// The columns of a group, as `pop_calls` returns them.
    fn columns<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyTuple>> {
        columns_tuple(py, &self.group(index)?.columns)
    }

    /// Take a plan for each group. For each group that the pass can answer: its rows, and the latest
    /// deadline of its calls. None: it has no plan, or a call of it is not the usual case, or its
    /// deadline is before `earliest_ns`.
    fn assign(
        &mut self,
        plans: Vec<Option<Py<ModelPlan>>>,
        earliest_ns: i64,
    ) -> PyResult<Vec<Option<(usize, i64)>>> {
        if plans.len() != self.groups.len() {
            return Err(PyValueError::new_err("a plan or None for each group"));
        }
        self.plans = plans;
        let assign = |(group, plan): (&mut Group, &Option<Py<ModelPlan>>)| {
            let plan = plan.as_ref()?.get();
            let shape = (group.columns.shape.entities, group.columns.shape.width());
            let late = group.columns.deadline_ns.iter().any(|deadline| *deadline < earliest_ns);
            if shape != plan.shape || late {
                return None;
            }
            let latest = *group.columns.deadline_ns.iter().max()?;
            group
                .assign(&plan.evidence_prefix, plan.holdout.as_ref())
                .then_some((group.rows(), latest))
        };
        Ok(self.groups.iter_mut().zip(&self.plans).map(assign).collect())
    }

    /// The store's keys of these groups, group by group and view by view.
    fn store_keys(&self, members: Vec<usize>) -> PyResult<PyStoreKeys> {
        let mut keys = StoreKeys::default();
        for index in members {
            let (group, plan) = (self.group(index)?, self.plan(index)?);
            for (view, position) in &plan.views {
                for row in 0..group.rows() {
                    view.get().0.put_key(group.entity(row, *position), &mut keys);
                }
            }
        }
        Ok(PyStoreKeys(keys))
    }

    /// Take the store's replies to `store_keys`. `time` has the columns of the request's time for each
    /// of these groups, as float32 bytes.
    fn read(
        &mut self,
        members: Vec<usize>,
        replies: Vec<Option<Bound<'_, PyBytes>>>,
        now_ms: i64,
        time: Vec<Vec<u8>>,
    ) -> PyResult<()> {
        let replies: Vec<Option<&[u8]>> =
            replies.iter().map(|reply| reply.as_ref().map(|row| row.as_bytes())).collect();
        let mut first = 0;
        for (index, time) in members.into_iter().zip(time) {
            self.plan(index)?;
            let Some(plan) = self.plans[index].as_ref().map(Py::get) else {
                continue;
            };
            let views: Vec<(&ViewRows, usize)> =
                plan.views.iter().map(|(view, position)| (&view.get().0, *position)).collect();
            let group = &mut self.groups[index];
            let last = first + group.rows() * views.len();
            let own = replies.get(first..last).unwrap_or_default();
            if !group.read(&views, own, now_ms, &time) {
                return Err(PyValueError::new_err("a reply for each key"));
            }
            first = last;
        }
        Ok(())
    }

    /// The matrix of a group that was read: float32 as bytes.
    fn matrix<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.group(index)?.matrix))
    }

    /// How a group's rows were read: (R,) uint32 flags as bytes, and the broken rows.
    fn read_flags<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, usize)> {
        let group = self.group(index)?;
        let flags: Vec<u8> = group.flags.iter().flat_map(|flags| flags.to_le_bytes()).collect();
        Ok((PyBytes::new(py, &flags), group.broken))
    }

    /// Whether a row of the group has a flag, or was broken.
    fn flagged(&self, index: usize) -> PyResult<bool> {
        let group = self.group(index)?;
        Ok(group.broken > 0 || group.flags.iter().any(|flags| *flags != 0))
    }

    /// Score the groups that native trees score, each without the GIL. For each of these groups: whether
    /// all scores are finite. None: Python has to score it.
    fn score_trees(&mut self, py: Python<'_>, members: Vec<usize>) -> PyResult<Vec<Option<bool>>> {
        let mut finite = Vec::with_capacity(members.len());
        for index in members {
            let (group, plan) = (self.group(index)?, self.plan(index)?);
            let fits = |trees: &&trees::Trees| {
                group.matrix.len() == group.rows() * trees.width() * 4
                    && trees.outputs().count() == plan.outputs
            };
            let trees = plan.trees.as_ref().map(|trees| &trees.get().0).filter(fits);
            let Some(trees) = trees else {
                finite.push(None);
                continue;
            };
            // One version after the other, so that a crash names the version that caused it.
            let scores = plan.marked(py, || py.detach(|| trees.score(&group.inputs())));
            let outputs = plan.outputs;
            finite.push(Some(self.groups[index].take_scores(scores, outputs)));
        }
        Ok(finite)
    }

    /// Take the (R, K) scores of a group. False: not all of them are finite.
    fn take_scores(
        &mut self,
        py: Python<'_>,
        index: usize,
        scores: PyBuffer<f32>,
    ) -> PyResult<bool> {
        let outputs = self.plan(index)?.outputs;
        if scores.shape().last() != Some(&outputs) {
            return Ok(false);
        }
        let scores = scores.to_vec(py)?;
        Ok(self.groups[index].take_scores(scores, outputs))
    }
}

impl Turn {
    fn group(&self, index: usize) -> PyResult<&Group> {
        self.groups.get(index).ok_or_else(|| PyValueError::new_err("no such group"))
    }

    fn plan(&self, index: usize) -> PyResult<&ModelPlan> {
        let plan = self.plans.get(index).and_then(Option::as_ref).map(Py::get);
        plan.ok_or_else(|| PyValueError::new_err("the group has no plan"))
    }
}

/// Take a turn of up to `rows_max` rows. None: no call waits.
#[pyfunction]
fn pop_turn(thread: PyRef<'_, IngressThread>, rows_max: usize, now_ns: i64) -> Option<Turn> {
    let shared = &thread.shared;
    shared.batch_timing.batch_taken(now_ns);
    let taken = shared.with_queue(|queue| queue.take_turn(rows_max, now_ns));
    (!taken.is_empty()).then(|| Turn {
        groups: taken.into_iter().map(Group::new).collect(),
        plans: Vec::new(),
    })
}

/// Answer these groups of a turn, which were read and scored. Returns the record of each.
///
/// `keys` are the cluster's key, the masking key and the sealing key. `first` is the first call's
/// sequence number. `times` are (Unix ns of the answer, Unix ns of the read, monotonic ns).
#[pyfunction]
fn answer_groups(
    thread: PyRef<'_, IngressThread>,
    mut turn: PyRefMut<'_, Turn>,
    members: Vec<usize>,
    keys: ([u8; 32], [u8; 32], [u8; 32]),
    first: u32,
    times: (i64, i64, i64),
) -> PyResult<Vec<AnsweredGroup>> {
    let (key, masking_key, sealing_key) = keys;
    let (unix_ns, read_unix_ns, answered_ns) = times;
    let times = AnswerTimes {
        unix_ns,
        read_unix_ns,
        answered_ns,
    };
    let (mut sequence, mut records, mut all_replies) = (first, Vec::new(), Vec::new());
    let Turn {
        groups,
        plans,
    } = &mut *turn;
    for index in members {
        let (Some(group), Some(Some(plan))) = (groups.get_mut(index), plans.get(index)) else {
            return Err(PyValueError::new_err("no such group, or it has no plan"));
        };
        let plan = plan.get();
        let parts = IdParts {
            key: &key,
            body: plan.body,
            rule: plan.rule,
            masking_key: &masking_key,
            sealing_key: plan.sealed.then_some(&sealing_key),
        };
        let shown = Replies {
            model: group.columns.shape.model.clone(),
            version: plan.shown.0.clone(),
            role: plan.shown.1,
            outputs: plan.outputs,
            ..Replies::default()
        };
        let calls = group.calls() as u32;
        let (replies, record) = group
            .answer(&parts, sequence, &times, shown)
            .ok_or_else(|| PyValueError::new_err("the group was not read and scored"))?;
        sequence = sequence.wrapping_add(calls);
        records.push(AnsweredGroup(record));
        all_replies.push(replies);
    }
    thread.shared.answer_all(all_replies);
    Ok(records)
}

/// Add the classes and functions to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ModelPlan>()?;
    module.add_class::<Turn>()?;
    module.add_function(wrap_pyfunction!(pop_turn, module)?)?;
    module.add_function(wrap_pyfunction!(answer_groups, module)?)
}
