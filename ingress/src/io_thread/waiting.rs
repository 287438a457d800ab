//! How long the I/O thread waits before and in a poll, and what follows if it waited much longer.

use std::thread;
use std::time::Duration;

use crate::io_thread::batch_timing::{self, POLL_INTERVAL_NS};
use crate::io_thread::io::{Io, TICK_NS};
use crate::io_thread::shared::Shared;
use crate::sys::os::now_ns;

/// If the thread sleeps this much longer than it meant to, the whole process was suspended.
const SUSPENDED_NS_MIN: i64 = 400_000_000;

impl Io {
    /// While Python has many calls, let further calls and replies gather before the next poll.
    pub(super) fn pause_while_busy(&self, shared: &Shared) {
        if batch_timing::is_busy(shared.calls_in_python()) {
            let pause_ns = POLL_INTERVAL_NS - (now_ns() - self.server.now_ns);
            if pause_ns > 0 {
                thread::sleep(Duration::from_nanos(pause_ns as u64));
            }
        }
    }

    /// Notice that the whole process was suspended (SIGSTOP, a frozen guest), and add that time to
    /// every connection's times. What peers sent meanwhile is still unread, so true means: read
    /// before checking timeouts.
    pub(super) fn add_suspended_time(&mut self, slept_ns: i64, ms: i32) -> bool {
        let suspended_ns = self.server.now_ns - slept_ns - i64::from(ms.max(0)) * 1_000_000;
        if ms < 0 || suspended_ns < SUSPENDED_NS_MIN {
            return false;
        }
        for conn in self.conns.iter_mut().flatten() {
            conn.add_suspended_time(suspended_ns);
        }
        if let Some(store) = self.store.as_mut() {
            store.add_suspended_time(suspended_ns);
        }
        true
    }

    /// How long to wait for sockets: until the next timer or tick. -1: without limit.
    pub(super) fn poll_timeout_ms(&self) -> i32 {
        let now_ns = now_ns();
        let mut until_ns = self.server.next_timer_ns().unwrap_or(i64::MAX);
        // Sending replies may let a PredictStream go on, whose next call is answered in the next turn.
        if !self.server.inflations.is_empty() || !self.server.fresh_calls.is_empty() {
            return 0;
        }
        if self.open_conns > 0 {
            until_ns = until_ns.min(self.ticked_ns + TICK_NS);
        }
        let store_due_ns = self.store.as_ref().and_then(|store| store.next_due_ns());
        until_ns = until_ns.min(store_due_ns.unwrap_or(i64::MAX));
        if until_ns == i64::MAX {
            return -1;
        }
        ((until_ns - now_ns).max(0) / 1_000_000 + 1).min(1_000) as i32
    }
}
