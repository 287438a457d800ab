//! Clean batches, for Python: what gateway/clean_natively.py hands over and gets.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::accel::observations::counts::{LatencyBins, ObservationCounts, SCORE_BINS};
use crate::accel::observations::record::Copies;
use crate::accel::observations::{Batch, FaultFreeBatches, Participant, ParticipantResult, Slices};
use crate::calls::columns::Column;

/// The edges of latencies, laid out once: stats.latency's.
#[pyclass(frozen, name = "LatencyBins")]
struct Bins(LatencyBins);

#[pymethods]
impl Bins {
    #[new]
    fn new(py: Python<'_>, edges: PyBuffer<i64>) -> PyResult<Bins> {
        let edges = edges.to_vec(py)?;
        if edges.len() >= usize::from(u16::MAX) || !edges.is_sorted() {
            return Err(PyValueError::new_err("edges grow, and are less than 65,535"));
        }
        Ok(Bins(LatencyBins::new(edges)))
    }
}

type Bytes<'py> = Bound<'py, PyBytes>;
type Kept = Py<PyBytes>;
/// (scores, answered_ns, done_ns, overdue, prediction ids).
type GivenDone = (Kept, i64, i64, bool, Kept);
/// (arms, key_hash, arrived_ns, row_offsets, held_out).
type GivenCalls = (Option<Kept>, Kept, Kept, Kept, Option<Kept>);
/// (flags, looked flags, matrix, read_unix_ns).
type GivenRows = (Kept, Kept, Kept, i64);
/// (buffer, starts, ends).
type GivenItems = (Kept, Kept, Kept);
/// One batch, its columns as bytes.
type Given = (GivenCalls, GivenRows, GivenItems, GivenItems, GivenDone, Option<GivenDone>);

fn done<'a>(py: Python<'a>, given: &'a GivenDone) -> ParticipantResult<'a> {
    let (scores, answered_ns, done_ns, overdue, ids) = given;
    ParticipantResult {
        scores: Column::new(scores.as_bytes(py)),
        answered_ns: *answered_ns,
        done_ns: *done_ns,
        overdue: *overdue,
        ids: ids.as_bytes(py),
    }
}

fn items<'a>(py: Python<'a>, given: &'a GivenItems) -> Slices<'a> {
    let (buffer, starts, ends) = given;
    Slices {
        buffer: buffer.as_bytes(py),
        starts: Column::new(starts.as_bytes(py)),
        ends: Column::new(ends.as_bytes(py)),
    }
}

fn batch<'a>(py: Python<'a>, given: &'a Given) -> Batch<'a> {
    let (calls, rows, entities, keys, production, canary) = given;
    let (arms, key_hash, arrived_ns, row_offsets, held_out) = calls;
    let (flags, lookup_flags, matrix, read_unix_ns) = rows;
    Batch {
        arms: arms.as_ref().map(|arms| arms.as_bytes(py)),
        key_hash: Column::new(key_hash.as_bytes(py)),
        arrived_ns: Column::new(arrived_ns.as_bytes(py)),
        row_offsets: Column::new(row_offsets.as_bytes(py)),
        held_out: held_out.as_ref().map(|out| out.as_bytes(py)),
        flags: Column::new(flags.as_bytes(py)),
        lookup_flags: Column::new(lookup_flags.as_bytes(py)),
        matrix: Column::new(matrix.as_bytes(py)),
        read_unix_ns: *read_unix_ns,
        entities: items(py, entities),
        keys: items(py, keys),
        production: done(py, production),
        canary: canary.as_ref().map(|canary| done(py, canary)),
    }
}

/// (calls, held_out, rows, flags, latency, scores, (scores', latencies' and timeouts' evidence)).
type Told<'py> = (u64, u64, u64, [u64; 4], Bytes<'py>, Bytes<'py>, [Bytes<'py>; 3]);
/// (matrix, row_offsets, key_hash, expected, flags).
type Copied<'py> = [Bytes<'py>; 5];

/// Several batches of one model at one revision; their columns are kept until this goes.
#[pyclass(frozen, name = "CleanBatches")]
struct Clean {
    batches: Vec<Given>,
    outputs: usize,
    entities: usize,
    width: usize,
}

#[pymethods]
impl Clean {
    #[new]
    fn new(
        py: Python<'_>,
        several: Vec<Given>,
        outputs: usize,
        entities: usize,
        width: usize,
    ) -> PyResult<Clean> {
        let clean = Clean {
            batches: several,
            outputs,
            entities,
            width,
        };
        if clean.seen(py).consistent() {
            return Ok(clean);
        }
        Err(PyValueError::new_err("columns of a batch do not fit each other"))
    }

    /// What one version did, counted; None: it has no calls. canary: whose.
    fn tally<'py>(
        &self,
        py: Python<'py>,
        canary: bool,
        latencies: &Bins,
        edges: PyBuffer<f32>,
        evidence_keep: Option<u64>,
    ) -> PyResult<Option<Told<'py>>> {
        let edges = edges.to_vec(py)?;
        if edges.len() + 4 > SCORE_BINS {
            return Err(PyValueError::new_err(format!("{} edges of scores", edges.len())));
        }
        let several = self.seen(py);
        let tally = several.count(participant(canary), &latencies.0, &edges, evidence_keep);
        Ok(tally.map(|tally| told(py, &tally)))
    }

    /// One version's answers as a ServedBatch's bytes; None: none are kept.
    fn record<'py>(
        &self,
        py: Python<'py>,
        canary: bool,
        head: &[u8],
        role: u8,
        keep: u64,
        columns: Option<Vec<usize>>,
    ) -> PyResult<Option<Bytes<'py>>> {
        self.has(columns.as_deref())?;
        let several = self.seen(py);
        let record = several.record(participant(canary), head, role, keep, columns.as_deref());
        Ok(record.map(|record| PyBytes::new(py, &record)))
    }

    /// What one shadow is to score of production's rows; None: nothing.
    fn copies<'py>(
        &self,
        py: Python<'py>,
        before: &[u8],
        sample_bp: u64,
        columns: Option<Vec<usize>>,
    ) -> PyResult<Option<Copied<'py>>> {
        self.has(columns.as_deref())?;
        let several = self.seen(py);
        let copies = several.copies(before, sample_bp, columns.as_deref());
        Ok(copies.map(|copies| copied(py, &copies)))
    }
}

impl Clean {
    fn has(&self, columns: Option<&[usize]>) -> PyResult<()> {
        let there = |column: &usize| *column < self.width;
        if columns.is_none_or(|columns| columns.iter().all(there)) {
            return Ok(());
        }
        Err(PyValueError::new_err(format!("a column of {} is not there", self.width)))
    }

    fn seen<'a>(&'a self, py: Python<'a>) -> FaultFreeBatches<'a> {
        let batches = self.batches.iter().map(|given| batch(py, given)).collect();
        FaultFreeBatches::new(batches, self.outputs, self.entities, self.width)
    }
}

fn participant(canary: bool) -> Participant {
    if canary {
        Participant::Canary
    } else {
        Participant::Production
    }
}

fn told<'py>(py: Python<'py>, tally: &ObservationCounts) -> Told<'py> {
    let [scores, latencies, timeouts] = &tally.records;
    (
        tally.calls,
        tally.held_out,
        tally.rows,
        tally.flags,
        bytes_of(py, tally.latency.iter().map(|count| count.to_ne_bytes())),
        bytes_of(py, tally.scores.iter().map(|count| count.to_ne_bytes())),
        [scores, latencies, timeouts].map(|fields| PyBytes::new(py, fields)),
    )
}

fn copied<'py>(py: Python<'py>, copies: &Copies) -> Copied<'py> {
    [&copies.matrix, &copies.row_offsets, &copies.key_hash, &copies.expected, &copies.flags]
        .map(|column| PyBytes::new(py, column))
}

fn bytes_of<'py, const N: usize>(
    py: Python<'py>,
    items: impl ExactSizeIterator<Item = [u8; N]>,
) -> Bytes<'py> {
    let mut bytes = vec![0; items.len() * N];
    for (place, item) in bytes.chunks_exact_mut(N).zip(items) {
        place.copy_from_slice(&item);
    }
    PyBytes::new(py, &bytes)
}

/// Put them into the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Bins>()?;
    module.add_class::<Clean>()
}
