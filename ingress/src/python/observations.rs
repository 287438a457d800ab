//! `turnout_ingress.FaultFreeBatches`, `LatencyBins` and `ScoreScale`: what gateway/telemetry/native_observations.py
//! passes in and gets back.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::answered_group::AnsweredGroup;
use crate::accel::observations::counts::{LatencyBins, ObservationCounts};
use crate::accel::observations::record::Copies;
use crate::accel::observations::scale::{ScoreScale, Unit};
use crate::accel::observations::{
    Batch, FaultFreeBatches, Participant, ParticipantResult, ReadTimes, Slices,
};
use crate::calls::columns::Column;

/// Latency bins between the edges of stats.latency.
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

/// The bins of scores: stats.score_scale.ScoreScale.
#[pyclass(frozen, name = "ScoreScale")]
struct PyScoreScale(ScoreScale);

#[pymethods]
impl PyScoreScale {
    /// The edges of each output, its first bin, the number of bins, and the outputs' centers and
    /// spreads. Columns are the bytes of float32.
    #[new]
    fn new(
        edges: Vec<Vec<u8>>,
        first_bins: Vec<usize>,
        size: usize,
        units: Option<(Vec<u8>, Vec<u8>)>,
    ) -> PyResult<PyScoreScale> {
        let edges = edges.iter().map(|column| Column::new(column).iter().collect()).collect();
        let units = units.map(|(centers, spreads)| {
            let spreads = Column::new(&spreads);
            let both = Column::new(&centers).iter().zip(spreads.iter());
            both.map(|(center, spread)| Unit {
                center,
                spread,
            })
            .collect()
        });
        let scale = ScoreScale::new(edges, first_bins, size, units);
        scale.map(PyScoreScale).ok_or_else(|| PyValueError::new_err("bins do not fit each other"))
    }
}

type Bytes<'py> = Bound<'py, PyBytes>;
/// A column that is kept alive as long as its batch.
type OwnedBytes = Py<PyBytes>;
/// (scores, answered_ns, done_ns, overdue, prediction ids).
type ResultTuple = (OwnedBytes, i64, i64, bool, OwnedBytes);
/// (arms, key_hash, arrived_ns, row_offsets, held_out).
type CallsTuple = (Option<OwnedBytes>, OwnedBytes, OwnedBytes, OwnedBytes, Option<OwnedBytes>);
/// (flags, matrix, read_unix_ns).
type RowsTuple = (OwnedBytes, OwnedBytes, i64);
/// (buffer, starts, ends).
type SlicesTuple = (OwnedBytes, OwnedBytes, OwnedBytes);
/// One batch: calls, rows, entity ids, sticky keys, production's result, the canary's result.
type BatchTuple =
    (CallsTuple, RowsTuple, SlicesTuple, SlicesTuple, ResultTuple, Option<ResultTuple>);

fn participant_result<'a>(py: Python<'a>, given: &'a ResultTuple) -> ParticipantResult<'a> {
    let (scores, answered_ns, done_ns, overdue, ids) = given;
    ParticipantResult {
        scores: Column::new(scores.as_bytes(py)),
        answered_ns: *answered_ns,
        done_ns: *done_ns,
        overdue: *overdue,
        ids: ids.as_bytes(py),
    }
}

fn slices<'a>(py: Python<'a>, given: &'a SlicesTuple) -> Slices<'a> {
    let (buffer, starts, ends) = given;
    Slices {
        buffer: buffer.as_bytes(py),
        starts: Column::new(starts.as_bytes(py)),
        ends: Column::new(ends.as_bytes(py)),
    }
}

/// A batch as columns, or a group that was answered in one pass.
#[derive(FromPyObject)]
enum GivenBatch {
    Group(Py<AnsweredGroup>),
    Columns(BatchTuple),
}

fn batch<'a>(py: Python<'a>, given: &'a GivenBatch) -> Batch<'a> {
    let given = match given {
        GivenBatch::Group(group) => return group.get().0.batch(),
        GivenBatch::Columns(given) => given,
    };
    let (calls, rows, entities, keys, production, canary) = given;
    let (arms, key_hash, arrived_ns, row_offsets, held_out) = calls;
    let (flags, matrix, read_unix_ns) = rows;
    Batch {
        arms: arms.as_ref().map(|arms| arms.as_bytes(py)),
        key_hash: Column::new(key_hash.as_bytes(py)),
        arrived_ns: Column::new(arrived_ns.as_bytes(py)),
        row_offsets: Column::new(row_offsets.as_bytes(py)),
        held_out: held_out.as_ref().map(|out| out.as_bytes(py)),
        flags: Column::new(flags.as_bytes(py)),
        matrix: Column::new(matrix.as_bytes(py)),
        read_unix_ns: ReadTimes::Batch(*read_unix_ns),
        entities: slices(py, entities),
        keys: slices(py, keys),
        production: participant_result(py, production),
        canary: canary.as_ref().map(|canary| participant_result(py, canary)),
    }
}

/// (calls, held_out, rows, flags, latency, scores, evidence of (scores, latencies, timeouts)).
type CountsTuple<'py> = (u64, u64, u64, [u64; 4], Bytes<'py>, Bytes<'py>, [Bytes<'py>; 3]);
/// The columns of `Copies`, in order.
type CopiesTuple<'py> = [Bytes<'py>; 9];

/// Several batches of one model at one revision. It keeps their columns alive.
#[pyclass(frozen, name = "FaultFreeBatches")]
struct PyFaultFreeBatches {
    batches: Vec<GivenBatch>,
    outputs: usize,
    entities: usize,
    width: usize,
}

#[pymethods]
impl PyFaultFreeBatches {
    #[new]
    fn new(
        py: Python<'_>,
        batches: Vec<GivenBatch>,
        outputs: usize,
        entities: usize,
        width: usize,
    ) -> PyResult<PyFaultFreeBatches> {
        let batches = PyFaultFreeBatches {
            batches,
            outputs,
            entities,
            width,
        };
        if batches.borrowed(py).consistent() {
            return Ok(batches);
        }
        Err(PyValueError::new_err("columns of a batch do not fit each other"))
    }

    /// The observations of the canary or of production. None: it has no calls.
    fn count_observations<'py>(
        &self,
        py: Python<'py>,
        canary: bool,
        latencies: &Bins,
        scale: &PyScoreScale,
        sampled: Option<u64>,
    ) -> PyResult<Option<CountsTuple<'py>>> {
        if scale.0.outputs() != self.outputs {
            return Err(PyValueError::new_err(format!("bins of {} outputs", scale.0.outputs())));
        }
        let batches = self.borrowed(py);
        let counts = batches.count(participant(canary), &latencies.0, &scale.0, sampled);
        Ok(counts.map(|counts| counts_tuple(py, &counts)))
    }

    /// The canary's or production's answers as a ServedBatch. None: no call is in the sample.
    fn record<'py>(
        &self,
        py: Python<'py>,
        canary: bool,
        header: &[u8],
        role: u8,
        sampled: u64,
        columns: Option<Vec<usize>>,
    ) -> PyResult<Option<Bytes<'py>>> {
        self.check_columns(columns.as_deref())?;
        let batches = self.borrowed(py);
        let record = batches.record(participant(canary), header, role, sampled, columns.as_deref());
        Ok(record.map(|record| PyBytes::new(py, &record)))
    }

    /// The rows that one shadow is to score. None: no call is in its sample.
    fn copies<'py>(
        &self,
        py: Python<'py>,
        prefix: &[u8],
        sample_bp: u64,
        columns: Option<Vec<usize>>,
    ) -> PyResult<Option<CopiesTuple<'py>>> {
        self.check_columns(columns.as_deref())?;
        let batches = self.borrowed(py);
        let copies = batches.copies(prefix, sample_bp, columns.as_deref());
        Ok(copies.map(|copies| copies_tuple(py, &copies)))
    }
}

impl PyFaultFreeBatches {
    fn check_columns(&self, columns: Option<&[usize]>) -> PyResult<()> {
        let exists = |column: &usize| *column < self.width;
        if columns.is_none_or(|columns| columns.iter().all(exists)) {
            return Ok(());
        }
        Err(PyValueError::new_err(format!("a column of {} is not there", self.width)))
    }

    fn borrowed<'a>(&'a self, py: Python<'a>) -> FaultFreeBatches<'a> {
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

fn counts_tuple<'py>(py: Python<'py>, counts: &ObservationCounts) -> CountsTuple<'py> {
    let [scores, latencies, timeouts] = &counts.records;
    (
        counts.calls,
        counts.held_out,
        counts.rows,
        counts.flags,
        bytes_of(py, counts.latency.iter().map(|count| count.to_ne_bytes())),
        bytes_of(py, counts.scores.iter().map(|count| count.to_ne_bytes())),
        [scores, latencies, timeouts].map(|fields| PyBytes::new(py, fields)),
    )
}

fn copies_tuple<'py>(py: Python<'py>, copies: &Copies) -> CopiesTuple<'py> {
    [
        &copies.matrix,
        &copies.row_offsets,
        &copies.key_hash,
        &copies.expected,
        &copies.flags,
        &copies.read_unix_ns,
        &copies.prediction_ids,
        &copies.entity_ids,
        &copies.entity_offsets,
    ]
    .map(|column| PyBytes::new(py, column))
}

fn bytes_of<'py, const N: usize>(
    py: Python<'py>,
    items: impl ExactSizeIterator<Item = [u8; N]>,
) -> Bytes<'py> {
    let mut bytes = vec![0; items.len() * N];
    for (chunk, item) in bytes.chunks_exact_mut(N).zip(items) {
        chunk.copy_from_slice(&item);
    }
    PyBytes::new(py, &bytes)
}

/// Add the classes to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Bins>()?;
    module.add_class::<PyScoreScale>()?;
    module.add_class::<PyFaultFreeBatches>()
}
