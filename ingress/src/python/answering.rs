//! What the I/O thread answers by itself, as gateway/predict/turns.py decides it and takes its records.

use std::sync::Arc;

use pyo3::prelude::*;

use super::answered_group::AnsweredGroup;
use super::io_thread::IngressThread;
use super::turns::{id_keys, IdKeysTuple, ModelPlan};
use crate::io_thread::answer_records::AnswerRecord;

/// Set the keys of the prediction ids that the thread makes: the cluster's, masking and sealing key.
#[pyfunction]
fn set_id_keys(py: Python<'_>, thread: PyRef<'_, IngressThread>, keys: IdKeysTuple) {
    let shared = Arc::clone(&thread.shared);
    py.detach(|| shared.answering.set_keys(id_keys(keys)));
}

/// Have the thread answer usual calls of a model by a plan with this number, or, with None, no call. The
/// plan before answers no call any more.
#[pyfunction]
#[pyo3(signature = (thread, model, plan))]
fn publish_plan(
    py: Python<'_>,
    thread: PyRef<'_, IngressThread>,
    model: String,
    plan: Option<(u64, Py<ModelPlan>)>,
) {
    let plan = plan.map(|(number, plan)| (number, Arc::clone(&plan.get().plan)));
    let shared = Arc::clone(&thread.shared);
    py.detach(|| shared.answering.publish(model, plan));
}

/// Return the first of `count` sequence numbers of prediction ids, which wrap.
#[pyfunction]
fn reserve_ids(thread: PyRef<'_, IngressThread>, count: u32) -> u32 {
    thread.shared.answering.reserve(count)
}

/// Whether records of the thread's answers have waited long enough.
#[pyfunction]
fn records_due(thread: PyRef<'_, IngressThread>) -> bool {
    thread.shared.records_due()
}

/// Take the records of the thread's answers: (number of the plan, Unix ns, rows of each group that was
/// answered at once, rows, columns).
#[pyfunction]
fn take_records(
    py: Python<'_>,
    thread: PyRef<'_, IngressThread>,
) -> Vec<(u64, i64, Vec<u32>, usize, AnsweredGroup)> {
    let shared = Arc::clone(&thread.shared);
    let as_tuple = |record: AnswerRecord| {
        let calls = AnsweredGroup(record.calls);
        (record.plan, record.unix_ns, record.group_rows, record.rows, calls)
    };
    py.detach(|| shared.take_records()).into_iter().map(as_tuple).collect()
}

/// Add the functions to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_id_keys, module)?)?;
    module.add_function(wrap_pyfunction!(publish_plan, module)?)?;
    module.add_function(wrap_pyfunction!(reserve_ids, module)?)?;
    module.add_function(wrap_pyfunction!(records_due, module)?)?;
    module.add_function(wrap_pyfunction!(take_records, module)?)
}
