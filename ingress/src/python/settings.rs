//! Python's model shapes and settings, read from their attributes.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::calls::shape::{ModelShape, NameLimits};
use crate::http2::service::Limits;
use crate::http2::tls::{Tls, TlsFiles};
use crate::io_thread::batch_timing::BatchTiming;

/// The attributes of a gateway.columns.ModelShape.
#[derive(FromPyObject)]
pub struct ModelShapeAttributes<'py> {
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

impl ModelShapeAttributes<'_> {
    /// The shape as decoders need it, with names as Python's repr writes them.
    pub fn shape(&self) -> PyResult<ModelShape> {
        // Names as they are, and as Python's repr writes them.
        let names: Vec<String> = self.input_names.extract()?;
        let reprs: Vec<String> = self
            .input_names
            .iter()
            .map(|name| Ok(name.repr()?.to_string()))
            .collect::<PyResult<_>>()?;
        // The tensors of the Open Inference Protocol that the model takes.
        let tensors = [("'keys'", self.entities > 0), ("'inputs'", !names.is_empty())];
        let wanted: Vec<&str> =
            tensors.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
        let dictionary = |categories: &Vec<String>| {
            // In reverse, so that the first of equal categories wins.
            let coded = categories.iter().enumerate().rev();
            coded.map(|(code, category)| (category.clone().into_bytes(), code as f32)).collect()
        };
        Ok(ModelShape {
            model: self.model.clone(),
            entities: self.entities,
            inputs_repr: format!("[{}]", reprs.join(", ")),
            input_reprs: reprs,
            input_indexes: names.into_iter().map(String::into_bytes).zip(0..).collect(),
            dictionaries: self.dictionaries.iter().map(dictionary).collect(),
            input_defaults: self.input_defaults.clone(),
            outputs: self.outputs,
            contract: self.guard,
            rows_max: self.rows_max,
            deadline_ns_default: self.deadline_ns_default,
            nan_inputs_refused: self.nan_inputs_refused,
            tensors_repr: format!("[{}]", wanted.join(", ")),
        })
    }
}

/// The attributes of a gateway.settings.Settings that this library needs.
#[derive(FromPyObject)]
pub struct Settings {
    streams_max: u32,
    connections_max: usize,
    client_connections_max: usize,
    message_bytes_max: usize,
    unscored_message_bytes_max: usize,
    message_bytes_inside_max: usize,
    message_bytes_receiving_max: usize,
    metadata_bytes_max: usize,
    typed_contents_bytes_max: usize,
    name_bytes_max: usize,
    request_id_bytes_max: usize,
    message_ms_max: i64,
    deadline_ms_max: i64,
    stream_calls_max: usize,
    connection_age_s_max: f64,
    connection_resets_s_max: i64,
    drain_grace_s: f64,
    batch_gap_us: i64,
    pub(super) deadline_left_us_min: i64,
    pub(super) rows_inside_max: u64,
    pub(super) default_rows_pct: u64,
    pub(super) sheddable_rows_pct: u64,
    tls_certificate: String,
    tls_key: String,
    tls_client_authority: String,
}

impl Settings {
    /// Bounds on names and texts.
    pub fn names(&self) -> NameLimits {
        NameLimits {
            name_bytes_max: self.name_bytes_max,
            request_id_bytes_max: self.request_id_bytes_max,
            typed_contents_bytes_max: self.typed_contents_bytes_max,
        }
    }

    /// When waiting calls become a batch.
    pub fn batch_timing(&self) -> BatchTiming {
        BatchTiming::new(self.batch_gap_us * 1_000)
    }

    /// The TLS configuration. None: connections are not encrypted.
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

    /// Bounds on connections, streams and messages.
    pub fn limits(&self) -> Limits {
        Limits {
            streams_max: self.streams_max,
            connections_max: self.connections_max,
            client_connections_max: self.client_connections_max,
            message_bytes_max: self.message_bytes_max,
            unscored_message_bytes_max: self.unscored_message_bytes_max,
            message_bytes_inside_max: self.message_bytes_inside_max,
            message_bytes_receiving_max: self.message_bytes_receiving_max,
            metadata_bytes_max: self.metadata_bytes_max,
            body_ns_max: self.message_ms_max * 1_000_000,
            deadline_ns_max: self.deadline_ms_max * 1_000_000,
            stream_calls_max: self.stream_calls_max,
            resets_s_max: self.connection_resets_s_max,
            age_ns_max: (self.connection_age_s_max * 1e9) as i64,
            grace_ns: (self.drain_grace_s * 1e9) as i64,
            names: self.names(),
        }
    }
}
