//! A mark that a version is being scored. It outlives a crash of the process, so that the supervisor can
//! name the version (gateway/isolation/breadcrumbs.py).

use std::sync::Arc;

use crate::sys::shared_page::SharedPage;

/// A thread that scores. Each has a byte of its own, because both may run a version at the same time.
#[derive(Clone, Copy)]
pub enum Thread {
    /// The thread of Python's event loop.
    Loop,
    /// The I/O thread.
    Io,
}

/// The bytes of one version in the page of a worker.
pub struct Breadcrumb {
    /// The page of the worker.
    pub page: Arc<SharedPage>,
    /// The position of the byte of Python's event loop.
    pub loop_at: usize,
    /// The position of the byte of the I/O thread.
    pub io_at: usize,
}

impl Breadcrumb {
    /// Run something while the thread's byte is 1.
    pub fn mark<T>(&self, thread: Thread, run: impl FnOnce() -> T) -> T {
        let at = match thread {
            Thread::Loop => self.loop_at,
            Thread::Io => self.io_at,
        };
        self.page.set(at, 1);
        let result = run();
        self.page.set(at, 0);
        result
    }
}
