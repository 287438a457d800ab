//! The Python module `turnout_ingress`: what gateway/native_door.py holds in its hands.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;

use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::settings::{ModelShape, Settings};
use crate::calls::admission::Admission;
use crate::calls::call_queue::CallQueue;
use crate::calls::reply::Replies;
use crate::calls::shape::{Call, NameLimits, Refusal, Shapes};
use crate::calls::{decode as predict, infer};
use crate::http2::socket::Listener;
use crate::http2::stream::Method;
use crate::http2::tls::Tls;
use crate::io_thread::io;
use crate::io_thread::shared::{Command, Event, Shared};
use crate::sys::nghttp2::Fields;

/// The I/O thread, seen from Python's event loop.
#[pyclass]
struct Door {
    shared: Arc<Shared>,
    shapes: Shapes,
    tls: Option<Arc<Tls>>,
    thread: Option<JoinHandle<()>>,
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[pymethods]
impl Door {
    /// Start the thread. methods: path to one of predict, predict_stream, infer, unary, stream.
    #[new]
    fn new(settings: Settings, methods: HashMap<String, String>) -> PyResult<Door> {
        let admission = Admission::new(
            settings.rows_inside_max,
            settings.default_rows_pct,
            settings.sheddable_rows_pct,
        );
        let shared = Arc::new(Shared::new(CallQueue::new(admission), settings.batch_timing())?);
        let methods = methods
            .into_iter()
            .map(|(path, kind)| Ok((path.into_bytes(), method(&kind)?)))
            .collect::<PyResult<_>>()?;
        let tls = settings.tls()?;
        let thread = io::start(settings.limits(), methods, Arc::clone(&shared), tls.clone())?;
        Ok(Door {
            shared,
            shapes: Shapes::new(),
            tls,
            thread: Some(thread),
        })
    }

    /// Open host:port (0: a free one); returns the port.
    fn listen(&self, host: &str, port: u16) -> PyResult<u16> {
        let listener = Listener::tcp(host, port, self.tls.clone()).map_err(|error| {
            PyOSError::new_err(format!("{host}:{port} cannot be listened on: {error}"))
        })?;
        let port = listener.port();
        self.shared.command(Command::Listen(listener));
        Ok(port)
    }

    /// Listen at a bound socket that was lent, by its descriptor; the caller may close its own.
    fn listen_at(&self, fd: i32) -> PyResult<u16> {
        let listener = Listener::lent(fd, self.tls.clone()).map_err(|error| {
            PyOSError::new_err(format!("the socket {fd} cannot be listened at: {error}"))
        })?;
        let port = listener.port();
        self.shared.command(Command::Listen(listener));
        Ok(port)
    }

    /// Open a Unix socket.
    fn listen_unix(&self, path: &str) -> PyResult<()> {
        let listener = Listener::unix(path).map_err(|error| {
            PyOSError::new_err(format!("{path} cannot be listened on: {error}"))
        })?;
        self.shared.command(Command::Listen(listener));
        Ok(())
    }

    /// Readable when there is something to hear.
    fn fileno(&self) -> i32 {
        self.shared.python_fd()
    }

    /// Silence the bell; then ask `events`, `refusals` and `waiting`.
    fn hush(&self) {
        self.shared.clear();
    }

    /// Replace what is known of models; those that did not change keep their queues.
    fn configure(&mut self, shapes: Vec<ModelShape<'_>>) -> PyResult<()> {
        let mut every = Shapes::new();
        for shape in shapes {
            let shape = shape.shape()?;
            let same = self.shapes.get(shape.model.as_bytes()).filter(|known| known.same(&shape));
            let shape = same.map_or_else(|| Arc::new(shape), Arc::clone);
            every.insert(shape.model.clone().into_bytes(), shape);
        }
        self.shapes = every.clone();
        self.shared.command(Command::Configure(every));
        Ok(())
    }

    /// Whether calls wait that make a batch now; if not, the bell rings once they do.
    fn waiting(&self) -> bool {
        self.shared.waiting()
    }

    /// Rows admitted and not yet answered.
    fn rows_inside(&self) -> u64 {
        self.shared.rows_inside.load(Ordering::Relaxed)
    }

    /// Connections open.
    fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// What waits, as (model, entities, inputs, then Calls' columns as bytes), or None.
    fn take<'py>(
        &self,
        py: Python<'py>,
        rows_max: usize,
        now_ns: i64,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.shared.batch_timing.taken(now_ns);
        let Some(columns) = self.shared.with_queue(|queue| queue.take(rows_max, now_ns)) else {
            return Ok(None);
        };
        let bytes = |column: &[u8]| PyBytes::new(py, column);
        let every = (
            (columns.shape.model.as_str(), columns.shape.width()),
            PyBytes::new(py, &le_u64(&columns.handles)),
            PyBytes::new(py, &le_i64(&columns.arrived_ns)),
            PyBytes::new(py, &le_i64(&columns.deadline_ns)),
            bytes(&columns.criticality),
            PyBytes::new(py, &le_u32(&columns.row_offsets)),
            (bytes(&columns.sticky.0), PyBytes::new(py, &le_u32(&columns.sticky.1))),
            (bytes(&columns.request_ids.0), PyBytes::new(py, &le_u32(&columns.request_ids.1))),
            columns.pins,
            (bytes(&columns.entity_ids.0), PyBytes::new(py, &le_u32(&columns.entity_ids.1))),
            bytes(&columns.inputs),
        );
        Ok(Some(every.into_pyobject(py)?))
    }

    /// Send replies: gateway.columns.Replies, field by field. more: others follow at once.
    #[allow(clippy::too_many_arguments)]
    fn answer(
        &self,
        py: Python<'_>,
        model: String,
        version: String,
        role: u32,
        outputs: usize,
        handles: PyBuffer<u64>,
        holdout: Option<&[u8]>,
        prediction_ids: &[u8],
        row_offsets: PyBuffer<u32>,
        scores: PyBuffer<f32>,
        row_flags: PyBuffer<u32>,
        more: bool,
    ) -> PyResult<()> {
        let replies = Replies {
            model,
            version,
            role,
            handles: copied(py, &handles)?,
            holdout: holdout.unwrap_or_default().to_vec(),
            prediction_ids: prediction_ids.to_vec(),
            row_offsets: copied(py, &row_offsets)?,
            scores: copied(py, &scores)?,
            outputs,
            row_flags: copied(py, &row_flags)?,
        };
        if !replies.consistent() {
            return Err(PyValueError::new_err(format!(
                "{} handles, {} prediction id bytes, {} row offsets, {} scores of {outputs} and {} \
                 flags do not fit each other",
                replies.handles.len(),
                replies.prediction_ids.len(),
                replies.row_offsets.len(),
                replies.scores.len(),
                replies.row_flags.len()
            )));
        }
        self.shared.answer(replies, more);
        Ok(())
    }

    /// End these calls with one status.
    #[pyo3(signature = (handles, code, words, pushback_ms))]
    fn refuse(
        &self,
        py: Python<'_>,
        handles: PyBuffer<u64>,
        code: u32,
        words: String,
        pushback_ms: Option<u32>,
    ) -> PyResult<()> {
        let refusal = Refusal {
            code,
            words,
            pushback_ms,
        };
        self.shared.command(Command::Refuse(copied(py, &handles)?, refusal));
        Ok(())
    }

    /// What happened to raw calls since: (kind, id, ...).
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let told = |event| match event {
            Event::Opened(id, path, metadata, deadline_ns) => {
                let metadata: Vec<_> = metadata
                    .iter()
                    .map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value)))
                    .collect();
                ("opened", id, path, metadata, deadline_ns).into_pyobject(py)
            }
            Event::Message(id, bytes) => {
                ("message", id, PyBytes::new(py, &bytes)).into_pyobject(py)
            }
            Event::Ended(id) => ("ended", id).into_pyobject(py),
            Event::Gone(id) => ("gone", id).into_pyobject(py),
            Event::Flushed(id) => ("flushed", id).into_pyobject(py),
        };
        self.shared.events().into_iter().map(told).collect()
    }

    /// Refusals made here since: (model, code, words, pushback_ms, how many).
    fn refusals(&self) -> Vec<(String, u32, String, Option<u32>, u64)> {
        let taken = self.shared.refusals().taken();
        let told = taken.into_iter().map(|(model, refusal, count)| {
            (model, refusal.code, refusal.words, refusal.pushback_ms, count)
        });
        told.collect()
    }

    /// A raw call's handler wants another message.
    fn more(&self, id: u64) {
        self.shared.command(Command::More(id));
    }

    /// A raw call's response headers.
    fn start(&self, id: u64, initial: Pairs) {
        self.shared.command(Command::Start(id, initial as Fields));
    }

    /// A raw call sends a message; "flushed" follows.
    fn send(&self, id: u64, message: &[u8]) {
        self.shared.command(Command::Send(id, message.to_vec()));
    }

    /// A raw call ends.
    fn finish(&self, id: u64, code: u32, words: String, trailing: Pairs) {
        self.shared.command(Command::Finish(id, code, words, trailing));
    }

    /// Take in who waits at the ports, and leave them.
    fn leave(&self) {
        self.shared.command(Command::Leave);
    }

    /// Ask clients to leave.
    fn drain(&self) {
        self.shared.command(Command::Drain);
    }

    /// Close everything, and wait for the thread.
    fn stop(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.shared.command(Command::Stop);
        py.detach(|| thread.join())
            .map_err(|_| PyRuntimeError::new_err("the ingress thread did not end well"))
    }
}

/// What a door's decoder makes of a message: the columns of one call, or (code, words).
///
/// dialect: "predict" or "infer".
#[pyfunction]
fn decode<'py>(
    py: Python<'py>,
    dialect: &str,
    message: &[u8],
    shape: ModelShape<'py>,
    settings: Settings,
) -> PyResult<Bound<'py, PyAny>> {
    let decoder: fn(&[u8], &Shapes, &NameLimits) -> Result<Call, Refusal> = match method(dialect)? {
        Method::Predict => |message, shapes, limits| predict::decode(message, shapes, limits).call,
        Method::Infer => {
            |message, shapes, limits| infer::decode(message, shapes, limits).decoded.call
        }
        _ => return Err(PyValueError::new_err(format!("{dialect:?} is not decoded here"))),
    };
    let shape = shape.shape()?;
    let shapes = Shapes::from([(shape.model.clone().into_bytes(), Arc::new(shape))]);
    Ok(match decoder(message, &shapes, &settings.names()) {
        Ok(call) => {
            let parts = call.parts().map(|part| PyBytes::new(py, part));
            (call.rows, call.criticality, parts.to_vec()).into_pyobject(py)?.into_any()
        }
        Err(refusal) => (refusal.code, refusal.words).into_pyobject(py)?.into_any(),
    })
}

fn method(kind: &str) -> PyResult<Method> {
    Ok(match kind {
        "predict" => Method::Predict,
        "predict_stream" => Method::PredictStream,
        "infer" => Method::Infer,
        "unary" => Method::RawUnary,
        "stream" => Method::RawStream,
        _ => return Err(PyValueError::new_err(format!("no method is of kind {kind:?}"))),
    })
}

fn copied<T: Element + Copy>(py: Python<'_>, buffer: &PyBuffer<T>) -> PyResult<Vec<T>> {
    buffer.to_vec(py)
}

fn le_u64(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn le_i64(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn le_u32(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Put them into the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Door>()?;
    module.add_function(wrap_pyfunction!(decode, module)?)
}
