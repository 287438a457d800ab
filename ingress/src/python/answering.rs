//! What the I/O thread answers by itself, as gateway/predict/turns.py decides it and takes its records.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use pyo3::prelude::*;

use super::answered_group::AnsweredGroup;
use super::io_thread::IngressThread;
use super::turns::{id_keys, IdKeysTuple, ModelPlan};
use crate::io_thread::answer_records::AnswerRecord;
use crate::io_thread::shared::Command;
use crate::io_thread::store_connection::StoreConnection;
use crate::sys::os::duplicate;

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

/// The fields of gateway.native_library.AnswerRecord.
type RecordTuple = (u64, i64, Vec<u32>, usize, Vec<u32>, usize, usize, AnsweredGroup);

/// Take the records of the thread's answers.
#[pyfunction]
fn take_records(py: Python<'_>, thread: PyRef<'_, IngressThread>) -> Vec<RecordTuple> {
    let shared = Arc::clone(&thread.shared);
    let as_tuple = |record: AnswerRecord| {
        let (read, calls) = (record.read, AnsweredGroup(record.calls));
        let (flagged, broken, late) = (read.flagged.to_vec(), read.broken, read.late_groups);
        let (plan, unix_ns, rows) = (record.plan, record.unix_ns, record.rows);
        (plan, unix_ns, record.group_rows, rows, flagged, broken, late, calls)
    };
    py.detach(|| shared.take_records()).into_iter().map(as_tuple).collect()
}

/// Have the thread read from a store over this connection, whose handshake is done. The descriptor is
/// duplicated.
#[pyfunction]
fn use_store(thread: PyRef<'_, IngressThread>, fd: i32) -> PyResult<()> {
    let connection = StoreConnection::new(duplicate(fd)?)?;
    thread.shared.store.connected.store(true, Ordering::SeqCst);
    thread.shared.command(Command::UseStore(Some(Box::new(connection))));
    Ok(())
}

/// Have the thread read no more from a store. Python answers the calls that wait for it.
#[pyfunction]
fn leave_store(thread: PyRef<'_, IngressThread>) {
    thread.shared.command(Command::UseStore(None));
}

/// Whether the thread has a connection to a store, and why it ended if not.
#[pyfunction]
fn store_state(thread: PyRef<'_, IngressThread>) -> (bool, String) {
    thread.shared.store.state()
}

/// Add the functions to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_id_keys, module)?)?;
    module.add_function(wrap_pyfunction!(publish_plan, module)?)?;
    module.add_function(wrap_pyfunction!(reserve_ids, module)?)?;
    module.add_function(wrap_pyfunction!(records_due, module)?)?;
    module.add_function(wrap_pyfunction!(take_records, module)?)?;
    module.add_function(wrap_pyfunction!(use_store, module)?)?;
    module.add_function(wrap_pyfunction!(leave_store, module)?)?;
    module.add_function(wrap_pyfunction!(store_state, module)?)
}
