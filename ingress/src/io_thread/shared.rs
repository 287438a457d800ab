//! What the I/O thread and Python's event loop share: the call queue, two mailboxes and two wakers.
//! Neither thread waits for the GIL here.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::calls::call_queue::CallQueue;
use crate::calls::callers::{CallerNumber, Directory, TokenDigest};
use crate::calls::refusal::Refusal;
use crate::calls::reply::Replies;
use crate::calls::shape::ModelShapes;
use crate::http2::service::RawCallEvent;
use crate::http2::socket::Listener;
use crate::io_thread::answer_records::AnswerRecord;
use crate::io_thread::answering::Answering;
use crate::io_thread::batch_timing::BatchTiming;
use crate::io_thread::store_connection::StoreConnection;
use crate::sys::nghttp2::Fields;
use crate::sys::os::{now_ns, Poller, Timer, Waker};

/// What Python tells the I/O thread to do.
pub enum Command {
    /// Replace the shapes of all models.
    Configure(ModelShapes),
    /// Replace the callers. The first time, from then on every call needs an identity.
    SetCallers(Directory),
    /// A token was verified: it is this caller's, or 0, until this monotonic time.
    TokenVerified(TokenDigest, CallerNumber, i64),
    /// Accept connections at this listener.
    Listen(Listener),
    /// Send these replies.
    Answer(Replies),
    /// End the calls with these handles with one refusal.
    Refuse(Vec<u64>, Refusal),
    /// Pass another message of a raw call to Python.
    RequestMessage(u64),
    /// Set the response headers that a raw call adds.
    SetInitialMetadata(u64, Fields),
    /// Send a message of a raw call.
    SendMessage(u64, Vec<u8>),
    /// End a raw call with a status code, a message and trailing metadata.
    Finish(u64, u32, String, Fields),
    /// Accept the connections that wait, and close every listener.
    CloseListeners,
    /// Read from the store over this connection. None: over none.
    UseStore(Option<Box<StoreConnection>>),
    /// Begin a graceful shutdown of every connection.
    Drain,
    /// Close every connection, and end the thread.
    Stop,
}

/// How often calls were refused here, by model and status code, with the first refusal of each.
#[derive(Default)]
pub struct RefusalCounts {
    counts: HashMap<(String, u32), (Refusal, u64)>,
}

impl RefusalCounts {
    /// Count one refusal.
    pub fn add(&mut self, model: &str, refusal: &Refusal) {
        match self.counts.get_mut(&(model.to_owned(), refusal.code)) {
            Some((_, count)) => *count += 1,
            None => {
                self.counts.insert((model.to_owned(), refusal.code), (refusal.clone(), 1));
            }
        }
    }

    /// Take all counts out, as (model, first refusal, how many).
    pub fn take(&mut self) -> Vec<(String, Refusal, u64)> {
        self.counts.drain().map(|((model, _), (refusal, count))| (model, refusal, count)).collect()
    }
}

/// What Python knows of the I/O thread's connection to the store.
#[derive(Default)]
pub struct StoreLink {
    /// There is a connection, or one is on its way to the thread.
    pub connected: AtomicBool,
    /// Why the last one ended.
    reason: Mutex<String>,
}

impl StoreLink {
    /// Note that the connection has ended.
    pub fn ended(&self, reason: String) {
        *locked(&self.reason) = reason;
        self.connected.store(false, Ordering::SeqCst);
    }

    /// Whether there is a connection, and why the last one ended if not.
    pub fn state(&self) -> (bool, String) {
        let connected = self.connected.load(Ordering::SeqCst);
        (connected, if connected { String::new() } else { locked(&self.reason).clone() })
    }
}

/// How long records of answers wait for further ones before Python is woken to take them.
const RECORDS_NS: i64 = 20_000_000;

/// The state that both threads use.
///
/// Python waits until `python_fd` is readable: either the I/O thread woke it, or a timer says that a
/// delayed batch or a record is due. The I/O thread waits in its poller, where `io_waker` wakes it. Each
/// side publishes that it waits (`python_waits`, `io_sleeps`), so that the other wakes it only then.
pub struct Shared {
    queue: Mutex<CallQueue>,
    commands: Mutex<Vec<Command>>,
    events: Mutex<Vec<RawCallEvent>>,
    refusals: Mutex<RefusalCounts>,
    caller_refusals: Mutex<HashMap<(CallerNumber, u32), u64>>,
    handshake_refusals: Mutex<HashMap<&'static str, (String, u64)>>,
    /// Rows admitted and not yet answered.
    pub rows_inside: AtomicU64,
    /// Calls admitted and not yet answered.
    pub calls_inside: AtomicU64,
    /// Calls among them that wait for the I/O thread's reads of the store.
    pub calls_for_store: AtomicU64,
    /// Rows admitted and not yet taken.
    pub rows_waiting: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    /// The I/O thread sleeps, or is about to.
    pub io_sleeps: AtomicBool,
    /// Python found no batch and waits to be woken for the next one.
    python_waits: AtomicBool,
    /// When waiting calls become a batch.
    pub batch_timing: BatchTiming,
    /// What the I/O thread answers by itself.
    pub answering: Answering,
    /// What Python knows of the I/O thread's connection to the store.
    pub store: StoreLink,
    /// When Python has to take the records of these answers. None: none waits. It is locked while
    /// `records_timer` is set.
    records_due_ns: Mutex<Option<i64>>,
    /// Wakes Python's event loop then.
    records_timer: Timer,
    /// Wakes Python's event loop.
    pub python_waker: Waker,
    /// Wakes Python's event loop when a delayed batch is due.
    batch_timer: Timer,
    batch_timer_set: AtomicBool,
    /// Readable when `python_waker`, `batch_timer` or `records_timer` is.
    python_poller: Poller,
    /// Wakes the I/O thread.
    pub io_waker: Waker,
}

impl Shared {
    /// The state before the first call.
    pub fn new(
        queue: CallQueue,
        batch_timing: BatchTiming,
        answering: Answering,
    ) -> std::io::Result<Shared> {
        let shared = Shared {
            queue: Mutex::new(queue),
            commands: Mutex::default(),
            events: Mutex::default(),
            refusals: Mutex::default(),
            caller_refusals: Mutex::default(),
            handshake_refusals: Mutex::default(),
            rows_inside: AtomicU64::new(0),
            calls_inside: AtomicU64::new(0),
            calls_for_store: AtomicU64::new(0),
            rows_waiting: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            io_sleeps: AtomicBool::new(false),
            python_waits: AtomicBool::new(false),
            batch_timing,
            answering,
            store: StoreLink::default(),
            records_due_ns: Mutex::default(),
            records_timer: Timer::new()?,
            python_waker: Waker::new()?,
            batch_timer: Timer::new()?,
            batch_timer_set: AtomicBool::new(false),
            python_poller: Poller::new()?,
            io_waker: Waker::new()?,
        };
        shared.python_poller.add(shared.python_waker.as_raw_fd(), 0, true, false)?;
        shared.python_poller.add(shared.batch_timer.as_raw_fd(), 1, true, false)?;
        shared.python_poller.add(shared.records_timer.as_raw_fd(), 2, true, false)?;
        Ok(shared)
    }

    /// The descriptor that Python's event loop watches.
    pub fn python_fd(&self) -> RawFd {
        self.python_poller.as_raw_fd()
    }

    /// Make `python_fd` unreadable. Called by Python before it looks at what has arrived.
    pub fn clear_python_fd(&self) {
        self.python_waker.clear();
        if self.batch_timer_set.swap(false, Ordering::SeqCst) {
            self.batch_timer.set(0);
        }
    }

    /// Calls that wait for Python, or that Python is answering.
    pub fn calls_in_python(&self) -> u64 {
        let for_store = self.calls_for_store.load(Ordering::Relaxed);
        self.calls_inside.load(Ordering::Relaxed).saturating_sub(for_store)
    }

    /// When the waiting rows may become a batch. None: now.
    fn batch_due_ns(&self) -> Option<i64> {
        let waiting = self.rows_waiting.load(Ordering::SeqCst);
        self.batch_timing.due_ns(waiting, self.calls_in_python(), now_ns())
    }

    /// Whether a batch may be taken now. If not, Python is woken when it may.
    pub fn is_batch_ready(&self) -> bool {
        // This order matters: a call that arrives after the check finds `python_waits` set.
        self.python_waits.store(true, Ordering::SeqCst);
        if self.rows_waiting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        if let Some(due_ns) = self.batch_due_ns() {
            self.batch_timer_set.store(true, Ordering::SeqCst);
            self.batch_timer.set(due_ns);
            return false;
        }
        self.python_waits.store(false, Ordering::SeqCst);
        true
    }

    /// Calls were admitted: wake Python if it waits, now or when a batch of them is due.
    pub fn calls_admitted(&self) {
        if self.rows_waiting.load(Ordering::SeqCst) == 0
            || !self.python_waits.load(Ordering::SeqCst)
        {
            return;
        }
        match self.batch_due_ns() {
            None if self.python_waits.swap(false, Ordering::SeqCst) => self.python_waker.wake(),
            Some(due_ns) if !self.batch_timer_set.swap(true, Ordering::SeqCst) => {
                self.batch_timer.set(due_ns);
            }
            _ => (),
        }
    }

    /// Calls were answered here: have Python woken in a while, unless it will be woken anyway.
    pub fn records_wait(&self, now_ns: i64) {
        let mut due_ns = locked(&self.records_due_ns);
        if due_ns.is_none() {
            *due_ns = Some(now_ns + RECORDS_NS);
            self.records_timer.set(now_ns + RECORDS_NS);
        }
    }

    /// Whether it is time for Python to take records.
    pub fn records_due(&self) -> bool {
        locked(&self.records_due_ns).is_some_and(|due_ns| now_ns() >= due_ns)
    }

    /// Take the records of the calls that the I/O thread answered.
    pub fn take_records(&self) -> Vec<AnswerRecord> {
        // The timer is cleared first: a record that comes meanwhile sets it again.
        let mut due_ns = locked(&self.records_due_ns);
        if due_ns.take().is_some() {
            self.records_timer.set(0);
        }
        drop(due_ns);
        self.answering.take_records()
    }

    /// Use the call queue, and publish its counts.
    pub fn with_queue<T>(&self, act: impl FnOnce(&mut CallQueue) -> T) -> T {
        let mut queue = locked(&self.queue);
        let result = act(&mut queue);
        self.rows_inside.store(queue.rows_inside(), Ordering::Relaxed);
        self.calls_inside.store(queue.calls_inside(), Ordering::Relaxed);
        self.rows_waiting.store(queue.rows_waiting(), Ordering::SeqCst);
        result
    }

    /// Send the I/O thread a command, and wake it.
    pub fn command(&self, command: Command) {
        locked(&self.commands).push(command);
        self.wake_io();
    }

    /// Send replies. With `more`, the I/O thread is not woken yet, because other replies follow.
    pub fn answer(&self, replies: Replies, more: bool) {
        if more {
            locked(&self.commands).push(Command::Answer(replies));
        } else {
            self.command(Command::Answer(replies));
        }
    }

    /// Send the replies of several groups at once.
    pub fn answer_all(&self, replies: Vec<Replies>) {
        locked(&self.commands).extend(replies.into_iter().map(Command::Answer));
        self.wake_io();
    }

    fn wake_io(&self) {
        if self.io_sleeps.swap(false, Ordering::SeqCst) {
            self.io_waker.wake();
        }
    }

    /// Swap the waiting commands into `commands`, which is empty.
    pub fn take_commands(&self, commands: &mut Vec<Command>) {
        std::mem::swap(&mut *locked(&self.commands), commands);
    }

    /// Whether a command waits.
    pub fn has_commands(&self) -> bool {
        !locked(&self.commands).is_empty()
    }

    /// Queue an event of a raw call for Python. The I/O thread wakes Python at the end of its turn.
    pub fn push_event(&self, event: RawCallEvent) {
        locked(&self.events).push(event);
    }

    /// Take all events of raw calls.
    pub fn take_events(&self) -> Vec<RawCallEvent> {
        std::mem::take(&mut *locked(&self.events))
    }

    /// Add refusals by (caller, code), which are taken out of `counts`.
    pub fn add_caller_refusals(&self, counts: &mut HashMap<(CallerNumber, u32), u64>) {
        let mut all = locked(&self.caller_refusals);
        for (key, count) in counts.drain() {
            *all.entry(key).or_default() += count;
        }
    }

    /// Take the refusals by caller: (caller, code, how many).
    pub fn caller_refusals(&self) -> Vec<(CallerNumber, u32, u64)> {
        let taken = std::mem::take(&mut *locked(&self.caller_refusals));
        taken.into_iter().map(|((caller, code), count)| (caller, code, count)).collect()
    }

    /// Count a TLS handshake that was refused. `detail` is the error's own words.
    pub fn count_handshake_refusal(&self, reason: &'static str, detail: String) {
        let mut all = locked(&self.handshake_refusals);
        let (newest, count) = all.entry(reason).or_default();
        *newest = detail;
        *count += 1;
    }

    /// Take the refused TLS handshakes: (reason, the newest error's words, how many).
    pub fn handshake_refusals(&self) -> Vec<(&'static str, String, u64)> {
        let taken = std::mem::take(&mut *locked(&self.handshake_refusals));
        taken.into_iter().map(|(reason, (detail, count))| (reason, detail, count)).collect()
    }

    /// The counts of refusals.
    pub fn refusals(&self) -> MutexGuard<'_, RefusalCounts> {
        locked(&self.refusals)
    }
}

/// Lock a mutex. It cannot be poisoned: a panic ends the process.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
