//! What Python hands over: its models' shapes and its settings, by their attributes.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::house::Limits;
use crate::pace::Pace;
use crate::shape::{DoorLimits, Shape};
use crate::tls::{Tls, TlsFiles};

/// gateway.columns.ModelShape, by its attributes.
#[derive(FromPyObject)]
pub struct ModelShape<'py> {
    model: String,
    entities: usize,
    input_names: Bound<'py, PyTuple>,
    dictionaries: Vec<Vec<String>>,
    input_defaults: Vec<f32>,
    outputs: usize,
    guard: u64,
    rows_max: usize,
    deadline_ns_default: i64,
    nan_inputs_refused: bool,
}

impl ModelShape<'_> {
    /// As the I/O thread wants it; names as Python writes them.
    pub fn shape(&self) -> PyResult<Shape> {
        let names: Vec<String> = self.input_names.extract()?;
        let reprs: Vec<String> = self
            .input_names
            .iter()
            .map(|name| Ok(name.repr()?.to_string()))
            .collect::<PyResult<_>>()?;
        let tensors = [("'keys'", self.entities > 0), ("'inputs'", !names.is_empty())];
        let wanted: Vec<&str> =
            tensors.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
        let dictionary = |words: &Vec<String>| {
            let coded = words.iter().enumerate().rev();
            coded.map(|(code, word)| (word.clone().into_bytes(), code as f32)).collect()
        };
        Ok(Shape {
            model: self.model.clone(),
            entities: self.entities,
            inputs_repr: format!("[{}]", reprs.join(", ")),
            input_reprs: reprs,
            places: names.into_iter().map(String::into_bytes).zip(0..).collect(),
            dictionaries: self.dictionaries.iter().map(dictionary).collect(),
            input_defaults: self.input_defaults.clone(),
            outputs: self.outputs,
            guard: self.guard,
            rows_max: self.rows_max,
            deadline_ns_default: self.deadline_ns_default,
            nan_inputs_refused: self.nan_inputs_refused,
            tensors_repr: format!("[{}]", wanted.join(", ")),
        })
    }
}

/// gateway.settings.Settings, as far as the door needs it.
#[derive(FromPyObject)]
pub struct Settings {
    streams_max: u32,
    connections_max: usize,
    message_bytes_max: usize,
    metadata_bytes_max: usize,
    typed_contents_bytes_max: usize,
    name_bytes_max: usize,
    request_id_bytes_max: usize,
    message_ms_max: i64,
    deadline_ms_max: i64,
    stream_calls_max: usize,
    connection_age_s_max: f64,
    drain_grace_s: f64,
    batch_gap_us: i64,
    pub(super) rows_inside_max: u64,
    pub(super) default_rows_pct: u64,
    pub(super) sheddable_rows_pct: u64,
    tls_certificate: String,
    tls_key: String,
    tls_client_authority: String,
}

impl Settings {
    /// Bounds on names.
    pub fn names(&self) -> DoorLimits {
        DoorLimits {
            name_bytes_max: self.name_bytes_max,
            request_id_bytes_max: self.request_id_bytes_max,
            typed_bytes_max: self.typed_contents_bytes_max,
        }
    }

    /// When batches are begun.
    pub fn pace(&self) -> Pace {
        Pace::new(self.batch_gap_us * 1_000)
    }

    /// How connections are encrypted, where they are.
    pub fn tls(&self) -> PyResult<Option<Arc<Tls>>> {
        if self.tls_certificate.is_empty() {
            return Ok(None);
        }
        let files = TlsFiles {
            certificate: self.tls_certificate.clone(),
            key: self.tls_key.clone(),
            client_authority: self.tls_client_authority.clone(),
        };
        Tls::new(files).map(|tls| Some(Arc::new(tls))).map_err(PyValueError::new_err)
    }

    /// Bounds on connections and calls.
    pub fn limits(&self) -> Limits {
        Limits {
            streams_max: self.streams_max,
            connections_max: self.connections_max,
            message_bytes_max: self.message_bytes_max,
            metadata_bytes_max: self.metadata_bytes_max,
            body_ns_max: self.message_ms_max * 1_000_000,
            deadline_ns_max: self.deadline_ms_max * 1_000_000,
            stream_calls_max: self.stream_calls_max,
            age_ns_max: (self.connection_age_s_max * 1e9) as i64,
            grace_ns: (self.drain_grace_s * 1e9) as i64,
            names: self.names(),
        }
    }
}
