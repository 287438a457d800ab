//! `turnout_ingress.AnsweredGroup` and `SingleAnswers`, which gateway/telemetry folds after the reply.

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::accel::answered_group::{self, AnswerTimes, SingleAnswer};

/// The answered calls of a group, for `FaultFreeBatches`.
#[pyclass(frozen)]
pub(super) struct AnsweredGroup(pub(super) answered_group::AnsweredGroup);

/// Calls of one row that were answered alone, until they are folded.
#[pyclass]
struct SingleAnswers(Option<answered_group::AnsweredGroup>);

#[pymethods]
impl SingleAnswers {
    #[new]
    fn new() -> SingleAnswers {
        SingleAnswers(None)
    }

    /// Add a call. `times` are (Unix ns of the read, monotonic ns of the arrival, monotonic ns of the
    /// answer). `row` is (1, W) float32. The scores are finite.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        py: Python<'_>,
        key_hash: u64,
        held_out: Option<bool>,
        times: (i64, i64, i64),
        flags: u32,
        row: PyBuffer<f32>,
        scores: Vec<f32>,
        entities: Vec<Bound<'_, PyBytes>>,
        prediction_id: &[u8],
    ) -> PyResult<()> {
        let (read_unix_ns, arrived_ns, answered_ns) = times;
        let entities: Vec<&[u8]> = entities.iter().map(|entity| entity.as_bytes()).collect();
        let matrix: Vec<u8> = row.to_vec(py)?.iter().flat_map(|v| v.to_le_bytes()).collect();
        // Only new prediction ids need the Unix time of the answer, and this call has its id.
        let times = AnswerTimes {
            unix_ns: read_unix_ns,
            read_unix_ns,
            answered_ns,
        };
        self.0.get_or_insert_with(|| answered_group::AnsweredGroup::empty(times)).add(
            &SingleAnswer {
                key_hash,
                held_out,
                arrived_ns,
                times,
                flags,
                matrix: &matrix,
                scores: &scores,
                entities: &entities,
                prediction_id,
            },
        );
        Ok(())
    }

    /// Take the calls as a group. None: no call was added since.
    fn take(&mut self) -> Option<AnsweredGroup> {
        self.0.take().map(AnsweredGroup)
    }
}

/// Add the classes to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<AnsweredGroup>()?;
    module.add_class::<SingleAnswers>()
}
