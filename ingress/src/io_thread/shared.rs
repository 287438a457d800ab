//! What the I/O thread and Python's event loop share: a few queues, two bells, no GIL.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::calls::call_queue::CallQueue;
use crate::calls::reply::Replies;
use crate::calls::shape::{Refusal, Shapes};
use crate::http2::socket::Listener;
use crate::io_thread::batch_timing::BatchTiming;
use crate::sys::nghttp2::Fields;
use crate::sys::os::{now_ns, Poller, Timer, Waker};

/// Python to I/O.
pub enum Command {
    /// Replace what is known of models.
    Configure(Shapes),
    /// Accept connections here.
    Listen(Listener),
    /// Send these replies.
    Answer(Replies),
    /// End these calls.
    Refuse(Vec<u64>, Refusal),
    /// A raw call's handler wants another message.
    More(u64),
    /// A raw call sends response headers of its own.
    Start(u64, Fields),
    /// A raw call sends a message.
    Send(u64, Vec<u8>),
    /// A raw call ends: code, words, trailing metadata.
    Finish(u64, u32, String, Fields),
    /// Accept no more connections than wait already.
    Leave,
    /// Ask clients to leave; what is in flight goes on.
    Drain,
    /// Close every connection, and end the thread.
    Stop,
}

/// I/O to Python, about calls that are passed as raw bytes.
pub enum Event {
    /// A call has begun: id, path, metadata, monotonic deadline in ns or 0.
    Opened(u64, String, Fields, i64),
    /// One of its messages.
    Message(u64, Vec<u8>),
    /// The caller sends no more.
    Ended(u64),
    /// The caller is gone, or its deadline passed.
    Gone(u64),
    /// What was sent has gone out.
    Flushed(u64),
}

/// Refusals made at the door, to be counted: by model and code, with the first one's words.
#[derive(Default)]
pub struct Refusals {
    seen: HashMap<(String, u32), (Refusal, u64)>,
}

impl Refusals {
    /// One more.
    pub fn note(&mut self, model: &str, refusal: &Refusal) {
        match self.seen.get_mut(&(model.to_owned(), refusal.code)) {
            Some((_, count)) => *count += 1,
            None => {
                self.seen.insert((model.to_owned(), refusal.code), (refusal.clone(), 1));
            }
        }
    }

    /// All so far: model, the first one, how many.
    pub fn taken(&mut self) -> Vec<(String, Refusal, u64)> {
        self.seen.drain().map(|((model, _), (refusal, count))| (model, refusal, count)).collect()
    }
}

/// The two threads' common table.
pub struct Shared {
    queue: Mutex<CallQueue>,
    commands: Mutex<Vec<Command>>,
    events: Mutex<Vec<Event>>,
    refusals: Mutex<Refusals>,
    /// Rows admitted and not yet answered.
    pub rows_inside: AtomicU64,
    /// Calls admitted and not yet answered.
    pub calls_inside: AtomicU64,
    /// Rows not yet taken.
    pub rows_waiting: AtomicU64,
    /// Connections open now.
    pub connections: AtomicU64,
    /// The I/O thread sleeps, or is about to.
    pub asleep: AtomicBool,
    /// Python wants to hear of the next call that waits.
    pub armed: AtomicBool,
    /// When batches are begun.
    pub batch_timing: BatchTiming,
    /// Heard by Python's event loop, as is `timer`.
    pub python: Waker,
    timer: Timer,
    timer_set: AtomicBool,
    heard: Poller,
    /// Heard by the I/O thread.
    pub io: Waker,
}

impl Shared {
    /// An empty table.
    pub fn new(queue: CallQueue, batch_timing: BatchTiming) -> std::io::Result<Shared> {
        let shared = Shared {
            queue: Mutex::new(queue),
            commands: Mutex::default(),
            events: Mutex::default(),
            refusals: Mutex::default(),
            rows_inside: AtomicU64::new(0),
            calls_inside: AtomicU64::new(0),
            rows_waiting: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            batch_timing,
            python: Waker::new()?,
            timer: Timer::new()?,
            timer_set: AtomicBool::new(false),
            heard: Poller::new()?,
            io: Waker::new()?,
        };
        shared.heard.add(shared.python.as_raw_fd(), 0, true, false)?;
        shared.heard.add(shared.timer.as_raw_fd(), 1, true, false)?;
        Ok(shared)
    }

    /// Readable when Python has something to hear.
    pub fn python_fd(&self) -> RawFd {
        self.heard.as_raw_fd()
    }

    /// Make it unreadable.
    pub fn clear(&self) {
        self.python.clear();
        if self.timer_set.swap(false, Ordering::SeqCst) {
            self.timer.set(0);
        }
    }

    /// When a batch may be made of what waits; None: now.
    fn due_ns(&self) -> Option<i64> {
        let waiting = self.rows_waiting.load(Ordering::SeqCst);
        self.batch_timing.due_ns(waiting, self.calls_inside.load(Ordering::Relaxed), now_ns())
    }

    /// Whether a batch is to be made now; if not, Python hears when it is.
    pub fn waiting(&self) -> bool {
        self.armed.store(true, Ordering::SeqCst);
        if self.rows_waiting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        if let Some(due_ns) = self.due_ns() {
            self.timer_set.store(true, Ordering::SeqCst);
            self.timer.set(due_ns);
            return false;
        }
        self.armed.store(false, Ordering::SeqCst);
        true
    }

    /// Calls came: have Python hear of them if it asked, now or when a batch of them is due.
    pub fn arrived(&self) {
        if self.rows_waiting.load(Ordering::SeqCst) == 0 || !self.armed.load(Ordering::SeqCst) {
            return;
        }
        match self.due_ns() {
            None if self.armed.swap(false, Ordering::SeqCst) => self.python.wake(),
            Some(due_ns) if !self.timer_set.swap(true, Ordering::SeqCst) => self.timer.set(due_ns),
            _ => (),
        }
    }

    /// Do something with the intake; its counts follow.
    pub fn with_queue<T>(&self, act: impl FnOnce(&mut CallQueue) -> T) -> T {
        let mut queue = locked(&self.queue);
        let result = act(&mut queue);
        self.rows_inside.store(queue.rows_inside(), Ordering::Relaxed);
        self.calls_inside.store(queue.calls_inside(), Ordering::Relaxed);
        self.rows_waiting.store(queue.rows_waiting(), Ordering::SeqCst);
        result
    }

    /// Tell the I/O thread something.
    pub fn command(&self, command: Command) {
        locked(&self.commands).push(command);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.io.wake();
        }
    }

    /// Send replies. more: others follow, and the I/O thread is woken for all of them.
    pub fn answer(&self, replies: Replies, more: bool) {
        if more {
            locked(&self.commands).push(Command::Answer(replies));
        } else {
            self.command(Command::Answer(replies));
        }
    }

    /// What Python said since.
    pub fn commands(&self, into: &mut Vec<Command>) {
        std::mem::swap(&mut *locked(&self.commands), into);
    }

    /// Whether Python said nothing since.
    pub fn has_no_commands(&self) -> bool {
        locked(&self.commands).is_empty()
    }

    /// Tell Python something.
    pub fn event(&self, event: Event) {
        locked(&self.events).push(event);
    }

    /// What the I/O thread said since.
    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *locked(&self.events))
    }

    /// Refusals to count.
    pub fn refusals(&self) -> MutexGuard<'_, Refusals> {
        locked(&self.refusals)
    }
}

/// A lock whose other holder cannot have failed: a panic ends the process.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
