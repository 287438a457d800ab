//! `turnout_ingress.Turn` and what belongs to it: all calls that were handed over at once, which
//! gateway/predict/turns.py answers in one pass.

use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::answered_group::AnsweredGroup;
use super::columns::columns_tuple;
use super::io_thread::IngressThread;
use super::native_model::{NativeModel, SharedPage};
use super::rows::PyViewRows;
use super::store_keys::PyStoreKeys;
use crate::accel::answered_group::AnswerTimes;
use crate::accel::breadcrumb::Thread;
use crate::accel::plan::{IdKeys, Plan};
use crate::accel::score_code::ScoreRule;
use crate::accel::store_keys::StoreKeys;
use crate::accel::turn::{Draw, Group};

/// A plan, as Python holds it.
#[pyclass(frozen)]
pub(super) struct ModelPlan {
    pub(super) plan: Arc<Plan>,
}

#[pymethods]
impl ModelPlan {
    /// The arguments are the fields of `Plan`. `holdout` is (prefix, share in basis points), `feature_limits`
    /// (ns that a read of 512 rows may take, whether calls are refused without it), `rule` (whether the first
    /// output is a probability, the threshold of decisions), and `shown` (label, role). `breadcrumb` is
    /// (page, the byte of Python's event loop, the byte of the I/O thread).
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        shape: (usize, usize),
        evidence_prefix: Vec<u8>,
        holdout: Option<(Vec<u8>, u64)>,
        views: Vec<(Py<PyViewRows>, usize)>,
        request_time: bool,
        feature_limits: (i64, bool),
        outputs: usize,
        body: &[u8],
        rule: (bool, f64),
        sealed: bool,
        shown: (String, u32),
        native: Option<Py<NativeModel>>,
        columns: Option<Vec<usize>>,
        breadcrumb: Option<(Py<SharedPage>, usize, usize)>,
    ) -> PyResult<ModelPlan> {
        if views.iter().any(|(_, position)| *position >= shape.0) || outputs == 0 {
            return Err(PyValueError::new_err("a view's entity is not among those of a row"));
        }
        let body = body.try_into().map_err(|_| PyValueError::new_err("a body of other length"))?;
        let plan = Plan {
            shape,
            evidence_prefix,
            holdout: holdout.map(|(prefix, share_bp)| Draw {
                prefix,
                share_bp,
            }),
            views: views.iter().map(|(view, at)| (Arc::clone(&view.get().0), *at)).collect(),
            request_time,
            feature_ns: feature_limits.0,
            features_required: feature_limits.1,
            outputs,
            body,
            rule: ScoreRule {
                probability: rule.0,
                threshold: rule.1,
            },
            sealed,
            shown,
            columns,
            scorer: native.map(|native| Arc::clone(&native.get().0)),
            breadcrumb: breadcrumb.map(|(page, at, io_at)| page.get().breadcrumb(at, io_at)),
        };
        Ok(ModelPlan {
            plan: Arc::new(plan),
        })
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
            let latest_ns = plan.as_ref()?.get().plan.assign(group, earliest_ns)?;
            Some((group.rows(), latest_ns))
        };
        Ok(self.groups.iter_mut().zip(&self.plans).map(assign).collect())
    }

    /// The store's keys of these groups, group by group and view by view.
    fn store_keys(&self, members: Vec<usize>) -> PyResult<PyStoreKeys> {
        let mut keys = StoreKeys::default();
        for index in members {
            self.plan(index)?.plan.put_keys(self.group(index)?, &mut keys);
        }
        Ok(PyStoreKeys(keys))
    }

    /// Take the store's replies to `store_keys`.
    fn read(
        &mut self,
        members: Vec<usize>,
        replies: Vec<Option<Bound<'_, PyBytes>>>,
        now_ms: i64,
    ) -> PyResult<()> {
        let replies: Vec<Option<&[u8]>> =
            replies.iter().map(|reply| reply.as_ref().map(|row| row.as_bytes())).collect();
        let mut first = 0;
        for index in members {
            let plan = Arc::clone(&self.plan(index)?.plan);
            let group = &mut self.groups[index];
            let last = first + plan.keys_of(group.rows());
            let own = replies.get(first..last).unwrap_or_default();
            if !plan.read(group, own, now_ms) {
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

    /// Score the groups of native models, each without the GIL. For each of these groups: whether all
    /// scores are finite. None: Python has to score it.
    fn score_native(&mut self, py: Python<'_>, members: Vec<usize>) -> PyResult<Vec<Option<bool>>> {
        let mut finite = Vec::with_capacity(members.len());
        for index in members {
            let plan = Arc::clone(&self.plan(index)?.plan);
            let group = self.group(index)?;
            let scores = py.detach(|| plan.score(group, Thread::Loop));
            let take = |scores| self.groups[index].take_scores(scores, plan.outputs).is_ok();
            finite.push(scores.map(take));
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
        let outputs = self.plan(index)?.plan.outputs;
        if scores.shape().last() != Some(&outputs) {
            return Ok(false);
        }
        let scores = scores.to_vec(py)?;
        Ok(self.groups[index].take_scores(scores, outputs).is_ok())
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

/// The cluster's key, the masking key and the sealing key.
pub(super) type IdKeysTuple = ([u8; 32], [u8; 32], [u8; 32]);

pub(super) fn id_keys((cluster, masking, sealing): IdKeysTuple) -> IdKeys {
    IdKeys {
        cluster,
        masking,
        sealing,
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
    keys: IdKeysTuple,
    first: u32,
    times: (i64, i64, i64),
) -> PyResult<Vec<AnsweredGroup>> {
    let keys = id_keys(keys);
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
        let calls = group.calls() as u32;
        let (replies, record) = plan
            .get()
            .plan
            .answer(group, &keys, sequence, &times)
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
