//! The I/O thread answers usual calls by itself: at the end of the turn in which they came, or when the
//! feature store has answered the read that they share.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::accel::store_keys::StoreKeys;
use crate::io_thread::answering::ANSWER_NS_MAX;
use crate::io_thread::io::{Io, STORE_TOKEN};
use crate::io_thread::store_connection::{Lost, StoreConnection, StoreState};
use crate::io_thread::usual_groups::{unix_ns, Outcome, ReadingGroup};
use crate::sys::os::{now_ns, Ready};

/// A group shares a read if it may wait at least one part in so many of the longest budget, as in
/// gateway/predict/turns.py. So a short deadline takes at most half of another model's time.
const BUDGET_PARTS: i64 = 2;
/// So many pieces are taken from the store's socket in one turn; then callers are served.
const RECEIVED_MAX: usize = 16;

impl Io {
    /// Answer the calls of this turn that need no Python, as far as there is time, and give the others to
    /// Python.
    pub(super) fn answer_fresh_calls(&mut self) {
        let shared = Arc::clone(&self.server.shared);
        let mut left_ns = ANSWER_NS_MAX;
        if !matches!(self.store_state(), StoreState::Busy(_)) {
            // Calls that have waited come first.
            std::mem::swap(&mut self.server.fresh_calls, &mut self.waiting_for_store);
            self.server.fresh_calls.append(&mut self.waiting_for_store);
        }
        // A reply may let a PredictStream go on, whose next call is then one of this turn, too.
        while !self.server.fresh_calls.is_empty() {
            let calls = self.server.take_fresh_calls();
            let outcome = shared.answering.answer(calls, self.store_state(), &mut left_ns);
            self.apply(outcome);
        }
        shared.calls_for_store.store(self.calls_for_store(), Ordering::Relaxed);
    }

    /// Send replies, begin a read, and give Python what is left.
    fn apply(&mut self, outcome: Outcome) {
        self.server.enqueue(outcome.left);
        self.waiting_for_store.extend(outcome.later);
        for replies in &outcome.replies {
            self.answer(replies);
        }
        if !outcome.replies.is_empty() {
            self.server.shared.records_wait(now_ns());
        }
        if !outcome.reading.is_empty() {
            self.read_from_store(outcome.reading);
        }
    }

    // The store

    fn store_state(&self) -> StoreState {
        self.store.as_ref().map_or(StoreState::Away, |store| store.state())
    }

    /// How many calls wait for the store, or for the next read of it.
    fn calls_for_store(&self) -> u64 {
        let reading = self.store.as_ref().map_or(0, |store| store.calls());
        (reading + self.waiting_for_store.len()) as u64
    }

    /// Read over another connection from now on, or over none.
    pub(super) fn use_store(&mut self, connection: Option<Box<StoreConnection>>) {
        self.lose_store(Lost("it was replaced".to_owned()));
        let Some(connection) = connection else {
            return;
        };
        match self.poller.add(connection.as_raw_fd(), STORE_TOKEN, true, false) {
            Ok(()) => {
                self.store = Some(connection);
                self.server.shared.store.connected.store(true, Ordering::SeqCst);
            }
            Err(error) => self.server.shared.store.ended(error.to_string()),
        }
    }

    /// Send one read for all groups. A group that may wait much less than another goes to Python.
    fn read_from_store(&mut self, groups: Vec<ReadingGroup>) {
        let now_ns = now_ns();
        let rows = groups.iter().map(|reading| reading.group.rows()).sum();
        let budget_ns =
            |reading: &ReadingGroup| reading.plan.read_budget_ns(rows, reading.latest_ns - now_ns);
        let longest_ns = groups.iter().map(budget_ns).max().unwrap_or(0);
        let (groups, hurried): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|reading| budget_ns(reading) >= longest_ns / BUDGET_PARTS);
        self.server.enqueue(hurried.into_iter().flat_map(|reading| reading.calls).collect());
        let Some(shortest_ns) = groups.iter().map(budget_ns).min().filter(|ns| *ns > 0) else {
            let calls = groups.into_iter().flat_map(|reading| reading.calls);
            return self.server.enqueue(calls.collect());
        };
        let mut keys = StoreKeys::default();
        groups.iter().for_each(|reading| reading.plan.put_keys(&reading.group, &mut keys));
        if let Some(store) = self.store.as_mut() {
            let sent = store.send(&keys, groups, unix_ns(), (now_ns, now_ns + shortest_ns));
            self.watch_store(sent);
        }
    }

    /// Take what the store has sent, and answer the calls that waited for it.
    pub(super) fn serve_store(&mut self, ready: &Ready, buffer: &mut [u8]) {
        let mut used = Ok(());
        if ready.writable {
            used = self.store.as_mut().map_or(Ok(()), |store| store.send_unsent());
        }
        for _ in 0..if ready.readable { RECEIVED_MAX } else { 0 } {
            let Some(store) = self.store.as_mut() else {
                return;
            };
            let received = store.receive(buffer);
            // Replies that came before an end are of use.
            let answered = self.answer_reads();
            let more = matches!(received, Ok(true));
            used = used.and(received.map(|_| ())).and(answered);
            if !more || used.is_err() {
                break;
            }
        }
        self.watch_store(used);
    }

    fn answer_reads(&mut self) -> Result<(), Lost> {
        let shared = Arc::clone(&self.server.shared);
        while let Some(store) = self.store.as_mut() {
            let Some(read) = store.answered_read()? else {
                break;
            };
            let outcome = shared.answering.answer_read(read.groups, &read.values, read.unix_ns);
            store.finish_read();
            self.apply(outcome);
        }
        Ok(())
    }

    /// Watch the store's socket as is needed after it was used, or end the connection.
    fn watch_store(&mut self, used: Result<(), Lost>) {
        let Some(store) = self.store.as_mut() else {
            return;
        };
        if let Err(lost) = used {
            return self.lose_store(lost);
        }
        let unsent = store.has_unsent();
        if store.watches_writing != unsent {
            store.watches_writing = unsent;
            let _ = self.poller.modify(store.as_raw_fd(), STORE_TOKEN, true, unsent);
        }
    }

    /// Answer calls whose read is overdue without the store. A store that was late is given up once no call
    /// waits for it.
    pub(super) fn check_store(&mut self) {
        let now_ns = self.server.now_ns;
        let Some(store) = self.store.as_mut() else {
            return;
        };
        let overdue = store.take_overdue(now_ns);
        if !overdue.is_empty() {
            let shared = Arc::clone(&self.server.shared);
            self.apply(shared.answering.answer_without_store(overdue));
            // Calls that have waited for a turn of the store have spent their time, too.
            if self.store_state() == StoreState::Away {
                let waiting = std::mem::take(&mut self.waiting_for_store);
                self.apply(shared.answering.answer_waiting(waiting));
            }
        }
        if self.store.as_ref().is_some_and(|store| store.is_given_up()) {
            self.lose_store(Lost("the store did not answer in time".to_owned()));
        }
    }

    /// End the connection to the store. Python answers the calls that wait for it.
    fn lose_store(&mut self, Lost(reason): Lost) {
        let Some(store) = self.store.take() else {
            return;
        };
        self.poller.remove(store.as_raw_fd());
        self.server.shared.store.ended(reason);
        let groups = store.into_groups();
        self.server.enqueue(groups.into_iter().flat_map(|reading| reading.calls).collect());
    }
}
