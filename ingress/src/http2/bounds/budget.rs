//! Bytes of messages that callers may have in this worker at one time: bounds of a connection, of a
//! client, and of all.
//!
//! Messages of scored methods that arrive whole and uncompressed need none: they are decoded where
//! they lie. Everything that is kept takes its bytes from a budget first: parts of messages, gzip
//! before and after it is inflated, and messages and headers that Python has not finished with.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::calls::refusal::{code, Refusal};

/// After how long a caller may try again when all callers together have used the worker's budget.
const PUSHBACK_MS: u32 = 100;

/// The last part of a worker's budget is left to clients that have little inside, so that clients
/// with much do not shut them out: an eighth, for clients with up to so many bytes.
const LITTLE_BYTES: usize = 128 * 1024;
const LITTLE_PART: usize = 8;

/// A budget counts the bytes of one of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Connection,
    Client,
    Worker,
}

/// A bound on bytes. Bytes that are taken here are taken from the parent too.
pub struct Budget {
    scope: Scope,
    /// The setting that the bound comes from.
    setting: &'static str,
    bytes_max: usize,
    used: AtomicUsize,
    parent: Option<Arc<Budget>>,
}

impl Budget {
    fn new(
        scope: Scope,
        setting: &'static str,
        bytes_max: usize,
        parent: Option<&Arc<Budget>>,
    ) -> Arc<Budget> {
        Arc::new(Budget {
            scope,
            setting,
            bytes_max,
            used: AtomicUsize::new(0),
            parent: parent.cloned(),
        })
    }

    /// Bytes that are taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Take bytes here and from every parent, or from none of them. `client_bytes` is what their
    /// client has with them, as far as it is known yet.
    fn take(&self, bytes: usize, client_bytes: usize) -> Result<(), Refusal> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        let bytes_max = match self.scope {
            Scope::Worker if client_bytes > LITTLE_BYTES => {
                self.bytes_max - self.bytes_max / LITTLE_PART
            }
            _ => self.bytes_max,
        };
        let taken = if used + bytes > bytes_max {
            Err(self.refusal(used, bytes))
        } else {
            self.parent.as_ref().map_or(Ok(()), |parent| parent.take(bytes, used + bytes))
        };
        if taken.is_err() {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.give_back(bytes);
        }
    }

    /// A caller who has too much inside is told so. If others have it, he is asked to retry.
    fn refusal(&self, used: usize, bytes: usize) -> Refusal {
        let (owner, code, pushback_ms, way_out) = match self.scope {
            Scope::Connection => {
                ("this connection has", code::RESOURCE_EXHAUSTED, None, "wait for replies")
            }
            Scope::Client => {
                ("this client address has", code::RESOURCE_EXHAUSTED, None, "wait for replies")
            }
            Scope::Worker => {
                ("all callers have", code::UNAVAILABLE, Some(PUSHBACK_MS), "retry after a pause")
            }
        };
        let (bytes_max, setting) = (self.bytes_max, self.setting);
        Refusal {
            code,
            message: format!(
                "{owner} {used} bytes of unfinished messages inside and {bytes} more came; at most \
                 {bytes_max} are taken ({setting}); {way_out}, or send smaller messages"
            ),
            pushback_ms,
        }
    }
}

/// Bytes taken from a budget. They are given back when this is dropped.
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// No bytes are taken yet.
    pub fn new(budget: &Arc<Budget>) -> Held {
        Held {
            budget: Arc::clone(budget),
            bytes: 0,
        }
    }

    /// Take or give back bytes, so that `bytes` are held. If they are refused, nothing changes.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.bytes {
            self.budget.take(bytes - self.bytes, bytes)?;
        } else if bytes < self.bytes {
            self.budget.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

/// The two budgets of a worker, of a client, or of a connection.
#[derive(Clone)]
pub struct Budgets {
    /// Bytes that cost more than their sender paid for them, or that Python will copy: gzip, what it
    /// inflates to, and messages and headers of raw calls.
    pub inside: Arc<Budget>,
    /// Bytes of uncompressed messages that have arrived in part.
    pub receiving: Arc<Budget>,
}

impl Budgets {
    /// The budgets of a worker.
    pub fn worker(inside_max: usize, receiving_max: usize) -> Budgets {
        let inside = "message_bytes_inside_max";
        let receiving = "message_bytes_receiving_max";
        Budgets {
            inside: Budget::new(Scope::Worker, inside, inside_max, None),
            receiving: Budget::new(Scope::Worker, receiving, receiving_max, None),
        }
    }

    /// The budgets of a client of the worker that has these: half of them.
    pub fn client(&self) -> Budgets {
        let half = |worker: &Arc<Budget>| {
            Budget::new(Scope::Client, worker.setting, worker.bytes_max / 2, Some(worker))
        };
        Budgets {
            inside: half(&self.inside),
            receiving: half(&self.receiving),
        }
    }

    /// The budgets of a connection of the client that has these. A connection may have two thirds of
    /// what costs more than it was sent, so that a client's other connections go on.
    pub fn connection(&self) -> Budgets {
        let (inside, share) = (&self.inside, self.inside.bytes_max / 3 * 2);
        Budgets {
            inside: Budget::new(Scope::Connection, inside.setting, share, Some(inside)),
            receiving: Arc::clone(&self.receiving),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_bytes_count_for_connection_client_and_worker_until_they_are_dropped() {
        let worker = Budgets::worker(600, 100);
        let client = worker.client();
        let (first, second) = (client.connection(), client.connection());
        let mut held = Held::new(&first.inside);
        held.resize(200).unwrap();
        assert_eq!(held.resize(201).unwrap_err().code, code::RESOURCE_EXHAUSTED);
        let mut other = Held::new(&second.inside);
        assert!(other.resize(101).unwrap_err().message.contains("client address"));
        other.resize(100).unwrap();
        held.resize(50).unwrap();
        assert_eq!((client.inside.used(), worker.inside.used()), (150, 150));
        drop((held, other));
        assert_eq!((first.inside.used(), worker.inside.used()), (0, 0));
    }

    #[test]
    fn last_eighth_of_a_worker_is_for_clients_with_little_inside() {
        let worker = Budgets::worker(16 * LITTLE_BYTES, 0);
        let clients: Vec<_> = (0..3).map(|_| worker.client().connection()).collect();
        let mut holds: Vec<_> = clients.iter().map(|client| Held::new(&client.inside)).collect();
        for (held, parts) in holds.iter_mut().zip([5, 5, 4]) {
            held.resize(parts * LITTLE_BYTES).unwrap();
        }
        assert_eq!(holds[2].resize(5 * LITTLE_BYTES).unwrap_err().code, code::UNAVAILABLE);
        let mut little = Held::new(&worker.client().connection().inside);
        assert_eq!(little.resize(LITTLE_BYTES + 1).unwrap_err().code, code::UNAVAILABLE);
        little.resize(LITTLE_BYTES).unwrap();
    }

    #[test]
    fn budget_of_a_worker_that_others_have_used_asks_to_retry() {
        let worker = Budgets::worker(600, 100);
        let clients: Vec<_> = (0..3).map(|_| worker.client().connection()).collect();
        let mut holds: Vec<_> = clients.iter().map(|client| Held::new(&client.inside)).collect();
        for held in &mut holds {
            held.resize(199).unwrap();
        }
        let mut last = Held::new(&worker.client().inside);
        let refusal = last.resize(4).unwrap_err();
        assert_eq!((refusal.code, refusal.pushback_ms), (code::UNAVAILABLE, Some(PUSHBACK_MS)));
        assert_eq!(worker.inside.used(), 597);
    }
}
