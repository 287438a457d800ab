//! `turnout_ingress.IngressThread`, which gateway/transport/native/server.py uses, and `decode` for tests.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;

use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::callers::{self, CallerTuple};
use super::columns::columns_tuple;
use super::settings::{ModelShapeAttributes, Settings};
use crate::calls::admission::Admission;
use crate::calls::call_queue::CallQueue;
use crate::calls::callers::{token_digest, token_of, CallerNumber, TokenDigest};
use crate::calls::decode::decode_predict;
use crate::calls::infer::decode_infer;
use crate::calls::refusal::Refusal;
use crate::calls::reply::Replies;
use crate::calls::shape::{Call, ModelShapes, NameLimits};
use crate::http2::service::RawCallEvent;
use crate::http2::socket::Listener;
use crate::http2::stream::Method;
use crate::http2::tls::Tls;
use crate::io_thread::answering::Answering;
use crate::io_thread::io;
use crate::io_thread::shared::{Command, Shared};
use crate::sys::nghttp2::Fields;

/// The I/O thread, as Python's event loop uses it.
#[pyclass]
pub(super) struct IngressThread {
    pub(super) shared: Arc<Shared>,
    shapes: ModelShapes,
    tls: Option<Arc<Tls>>,
    thread: Option<JoinHandle<()>>,
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[pymethods]
impl IngressThread {
    /// Start the I/O thread. `methods` maps each path to predict, predict_stream, infer, unary or stream.
    #[new]
    fn new(settings: Settings, methods: HashMap<String, String>) -> PyResult<IngressThread> {
        let admission = Admission::new(
            settings.rows_inside_max,
            settings.default_rows_pct,
            settings.sheddable_rows_pct,
        );
        let answering = Answering::new(settings.deadline_left_us_min * 1_000);
        let shared = Shared::new(CallQueue::new(admission), settings.batch_timing(), answering)?;
        let shared = Arc::new(shared);
        let methods = methods
            .into_iter()
            .map(|(path, kind)| Ok((path.into_bytes(), method(&kind)?)))
            .collect::<PyResult<_>>()?;
        let tls = settings.tls()?;
        let thread = io::start(settings.limits(), methods, Arc::clone(&shared), tls.clone())?;
        Ok(IngressThread {
            shared,
            shapes: ModelShapes::new(),
            tls,
            thread: Some(thread),
        })
    }

    /// Listen at host:port and return the port. Port 0 takes a free one.
    fn listen(&self, host: &str, port: u16) -> PyResult<u16> {
        let listener = Listener::tcp(host, port, self.tls.clone()).map_err(|error| {
            PyOSError::new_err(format!("{host}:{port} cannot be listened on: {error}"))
        })?;
        let port = listener.port();
        self.shared.command(Command::Listen(listener));
        Ok(port)
    }

    /// Listen at a bound socket and return its port. The descriptor is duplicated.
    fn listen_fd(&self, fd: i32) -> PyResult<u16> {
        let listener = Listener::from_fd(fd, self.tls.clone()).map_err(|error| {
            PyOSError::new_err(format!("the socket {fd} cannot be listened on: {error}"))
        })?;
        let port = listener.port();
        self.shared.command(Command::Listen(listener));
        Ok(port)
    }

    /// Listen at a Unix socket.
    fn listen_unix(&self, path: &str) -> PyResult<()> {
        let listener = Listener::unix(path).map_err(|error| {
            PyOSError::new_err(format!("{path} cannot be listened on: {error}"))
        })?;
        self.shared.command(Command::Listen(listener));
        Ok(())
    }

    /// The descriptor that is readable when there is something for Python.
    fn fileno(&self) -> i32 {
        self.shared.python_fd()
    }

    /// Make `fileno` unreadable. Ask `events`, `refusals` and `batch_ready` afterwards.
    fn clear_wakeup(&self) {
        self.shared.clear_python_fd();
    }

    /// Replace the shapes of all models. Models whose shape is the same keep their queues.
    fn configure(&mut self, shapes: Vec<ModelShapeAttributes<'_>>) -> PyResult<()> {
        let mut all_shapes = ModelShapes::new();
        for shape in shapes {
            let shape = shape.shape()?;
            let same =
                self.shapes.get(shape.model.as_bytes()).filter(|known| known.decodes_like(&shape));
            let shape = same.map_or_else(|| Arc::new(shape), Arc::clone);
            all_shapes.insert(shape.model.clone().into_bytes(), shape);
        }
        self.shapes = all_shapes.clone();
        self.shared.command(Command::Configure(all_shapes));
        Ok(())
    }

    /// Replace the callers file: rules by caller number - 1, tokens (SHA-256, number, monotonic ns of
    /// expiry), names of client certificates (name, number), and whether Python verifies other tokens.
    fn set_callers(
        &self,
        callers: Vec<CallerTuple>,
        tokens: Vec<(TokenDigest, CallerNumber, i64)>,
        names: Vec<(String, CallerNumber)>,
        verifies: bool,
    ) {
        let directory = callers::directory(callers, tokens, names, verifies);
        self.shared.command(Command::SetCallers(directory));
    }

    /// Answer an event "verify": the header's token is this caller's, or 0, until `expires_ns`.
    fn token_verified(&self, header: &[u8], caller: CallerNumber, expires_ns: i64) {
        if let Some(token) = token_of(header) {
            let key = token_digest(token);
            self.shared.command(Command::TokenVerified(key, caller, expires_ns));
        }
    }

    /// Refusals by caller since the last time: (caller number or 0, code, how many).
    fn caller_refusals(&self) -> Vec<(CallerNumber, u32, u64)> {
        self.shared.caller_refusals()
    }

    /// Refused TLS handshakes since the last time: (reason, the newest error's words, how many).
    fn handshake_refusals(&self) -> Vec<(&'static str, String, u64)> {
        self.shared.handshake_refusals()
    }

    /// Whether a batch may be taken now. If not, `fileno` becomes readable once it may.
    fn batch_ready(&self) -> bool {
        self.shared.is_batch_ready()
    }

    /// Rows admitted and not yet answered.
    fn rows_inside(&self) -> u64 {
        self.shared.rows_inside.load(Ordering::Relaxed)
    }

    /// Open connections.
    fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Take a batch of up to `rows_max` rows: ((model, inputs of a row), the columns of
    /// gateway.columns.Calls as bytes). None: no call waits.
    fn pop_calls<'py>(
        &self,
        py: Python<'py>,
        rows_max: usize,
        now_ns: i64,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.shared.batch_timing.batch_taken(now_ns);
        let Some(columns) = self.shared.with_queue(|queue| queue.take(rows_max, now_ns)) else {
            return Ok(None);
        };
        columns_tuple(py, &columns).map(Some)
    }

    /// Send replies: gateway.columns.Replies, field by field. With `more`, other replies follow at once,
    /// and the I/O thread is not woken yet.
    #[allow(clippy::too_many_arguments)]
    fn send_replies(
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
        // Copy the columns: Python may change its arrays later.
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
        // Refuse columns that do not fit each other, which would make the I/O thread panic.
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

    /// End the calls with these handles with one status.
    #[pyo3(signature = (handles, code, message, pushback_ms))]
    fn refuse_calls(
        &self,
        py: Python<'_>,
        handles: PyBuffer<u64>,
        code: u32,
        message: String,
        pushback_ms: Option<u32>,
    ) -> PyResult<()> {
        let refusal = Refusal {
            code,
            message,
            pushback_ms,
        };
        self.shared.command(Command::Refuse(copied(py, &handles)?, refusal));
        Ok(())
    }

    /// The events of raw calls since the last time: (kind, id, ...).
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let as_tuple = |event| match event {
            RawCallEvent::Opened(id, path, (metadata, _), deadline_ns, caller) => {
                let metadata: Vec<_> = metadata
                    .iter()
                    .map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value)))
                    .collect();
                ("opened", id, path, metadata, deadline_ns, caller).into_pyobject(py)
            }
            RawCallEvent::Message(id, bytes, _) => {
                ("message", id, PyBytes::new(py, &bytes)).into_pyobject(py)
            }
            RawCallEvent::Ended(id) => ("ended", id).into_pyobject(py),
            RawCallEvent::Gone(id) => ("gone", id).into_pyobject(py),
            RawCallEvent::Flushed(id) => ("flushed", id).into_pyobject(py),
            RawCallEvent::Verify(header) => {
                ("verify", 0, PyBytes::new(py, &header)).into_pyobject(py)
            }
        };
        self.shared.take_events().into_iter().map(as_tuple).collect()
    }

    /// Refusals since the last time: (model, code, message, pushback_ms, how many).
    fn refusals(&self) -> Vec<(String, u32, String, Option<u32>, u64)> {
        let taken = self.shared.refusals().take();
        let tuples = taken.into_iter().map(|(model, refusal, count)| {
            (model, refusal.code, refusal.message, refusal.pushback_ms, count)
        });
        tuples.collect()
    }

    /// Ask for another message of a raw call.
    fn request_message(&self, id: u64) {
        self.shared.command(Command::RequestMessage(id));
    }

    /// Set the response headers that a raw call adds.
    fn set_headers(&self, id: u64, headers: Pairs) {
        self.shared.command(Command::SetInitialMetadata(id, headers as Fields));
    }

    /// Send a message of a raw call. The event "flushed" follows.
    fn send_message(&self, id: u64, message: &[u8]) {
        self.shared.command(Command::SendMessage(id, message.to_vec()));
    }

    /// End a raw call.
    fn end_call(&self, id: u64, code: u32, message: String, trailing: Pairs) {
        self.shared.command(Command::Finish(id, code, message, trailing));
    }

    /// Accept the connections that wait, and close every listener.
    fn stop_listening(&self) {
        self.shared.command(Command::CloseListeners);
    }

    /// Begin a graceful shutdown of every connection.
    fn send_goaway(&self) {
        self.shared.command(Command::Drain);
    }

    /// Close every connection, and wait for the end of the I/O thread.
    fn stop(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.shared.command(Command::Stop);
        py.detach(|| thread.join())
            .map_err(|_| PyRuntimeError::new_err("the ingress thread did not end well"))
    }
}

/// Decode one message, for tests that compare both decoders. `dialect` is "predict" or "infer". Returns
/// (rows, criticality, parts of the call), or (code, message) if it is refused.
#[pyfunction]
fn decode<'py>(
    py: Python<'py>,
    dialect: &str,
    message: &[u8],
    shape: ModelShapeAttributes<'py>,
    settings: Settings,
) -> PyResult<Bound<'py, PyAny>> {
    let decoder: fn(&[u8], &ModelShapes, &NameLimits) -> Result<Call, Refusal> =
        match method(dialect)? {
            Method::Predict => {
                |message, shapes, limits| decode_predict(message, shapes, limits).call
            }
            Method::Infer => {
                |message, shapes, limits| decode_infer(message, shapes, limits).decoded.call
            }
            _ => return Err(PyValueError::new_err(format!("{dialect:?} is not decoded here"))),
        };
    let shape = shape.shape()?;
    let shapes = ModelShapes::from([(shape.model.clone().into_bytes(), Arc::new(shape))]);
    Ok(match decoder(message, &shapes, &settings.names()) {
        Ok(call) => {
            let parts = call.parts().map(|part| PyBytes::new(py, part));
            (call.rows, call.criticality, parts.to_vec()).into_pyobject(py)?.into_any()
        }
        Err(refusal) => (refusal.code, refusal.message).into_pyobject(py)?.into_any(),
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

/// Add the class and the function to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<IngressThread>()?;
    module.add_function(wrap_pyfunction!(decode, module)?)
}
