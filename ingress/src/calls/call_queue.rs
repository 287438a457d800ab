//! Admitted calls that wait for a batch, and the columns that a batch consists of. The order is that
//! of gateway/transport/call_queue.py.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::calls::admission::Admission;
use crate::calls::call_columns::{columns, CallColumns};
use crate::calls::refusal::Refusal;
use crate::calls::shape::{Call, ModelShape};

/// By criticality, the rank in which calls are taken: CRITICAL, then DEFAULT and unknown, then
/// SHEDDABLE.
pub const RANK_OF_CRITICALITY: [usize; 4] = [1, 0, 1, 2];
const RANK_LAST: usize = 2;
/// The number of CRITICAL in turnout.v1.Criticality.
const CRITICAL: u8 = 1;
/// Once the oldest call of a queue has waited longer than this, the newest is taken first: the oldest
/// calls will miss their deadlines anyway.
const NEWEST_FIRST_NS: i64 = 100_000_000;

/// A place for one call that is inside: admitted and not yet answered.
///
/// A handle is the slot's index with its generation above it, so that a handle of an earlier call in
/// the same slot is recognised.
struct Slot {
    generation: u32,
    rows: u32,
    occupied: bool,
    /// The call was admitted aside.
    aside: bool,
    /// The call, until it is taken or released.
    waiting: Option<WaitingCall>,
}

/// A call that was admitted and is not being answered yet.
pub struct WaitingCall {
    pub call: Call,
    /// Monotonic time of its arrival.
    pub arrived_ns: i64,
    /// Monotonic time of its deadline.
    pub deadline_ns: i64,
    /// The position among all calls that were ever admitted.
    sequence: u64,
}

/// The waiting calls of one rank and one model shape, as handles. A handle stays in its queue when its
/// call is released, and is skipped later.
struct Queue {
    shape: Arc<ModelShape>,
    rank: usize,
    handles: VecDeque<u64>,
}

/// Queues by criticality and model, behind an admission rule.
///
/// A call's rows are inside from `admit` to `release`, and waiting until `take`. A call that is
/// released while it waits will not be taken.
pub struct CallQueue {
    /// The rule that admits calls.
    pub admission: Admission,
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    queues: Vec<Queue>,
    last_sequence: u64,
    rows_inside: u64,
    rows_waiting: u64,
    /// Rows admitted aside, which neither wait nor delay other calls.
    rows_aside: u64,
}

impl CallQueue {
    /// An empty queue.
    pub fn new(admission: Admission) -> CallQueue {
        CallQueue {
            admission,
            slots: Vec::new(),
            free_slots: Vec::new(),
            queues: Vec::new(),
            last_sequence: 0,
            rows_inside: 0,
            rows_waiting: 0,
            rows_aside: 0,
        }
    }

    /// Rows admitted and not yet answered.
    pub fn rows_inside(&self) -> u64 {
        self.rows_inside
    }

    /// Calls admitted and not yet answered.
    pub fn calls_inside(&self) -> u64 {
        (self.slots.len() - self.free_slots.len()) as u64
    }

    /// Rows admitted and not yet taken.
    pub fn rows_waiting(&self) -> u64 {
        self.rows_waiting
    }

    /// Why not even a CRITICAL call of one row is admitted now. None: it would be.
    pub fn full(&self) -> Option<Refusal> {
        self.admission.refusal(1, CRITICAL, self.rows_inside, self.rows_ahead(), i64::MAX)
    }

    /// Rows that Python is scoring.
    fn rows_ahead(&self) -> u64 {
        self.rows_inside - self.rows_waiting - self.rows_aside
    }

    /// Admit a call to its queue and return its handle, or the refusal.
    pub fn admit(&mut self, call: Call, arrived_ns: i64, deadline_ns: i64) -> Result<u64, Refusal> {
        let (handle, waiting) = self.admit_aside(call, arrived_ns, deadline_ns)?;
        self.enqueue(handle, waiting);
        Ok(handle)
    }

    /// Admit a call without a place in a queue. It is aside until `enqueue` or `release`.
    pub fn admit_aside(
        &mut self,
        call: Call,
        arrived_ns: i64,
        deadline_ns: i64,
    ) -> Result<(u64, WaitingCall), Refusal> {
        // Ask the admission rule.
        let rows = call.rows;
        let refusal = self.admission.refusal(
            u64::from(rows),
            call.criticality,
            self.rows_inside,
            self.rows_ahead(),
            deadline_ns - arrived_ns,
        );
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        // Occupy a slot.
        self.last_sequence += 1;
        let waiting = WaitingCall {
            call,
            arrived_ns,
            deadline_ns,
            sequence: self.last_sequence,
        };
        self.rows_inside += u64::from(rows);
        self.rows_aside += u64::from(rows);
        Ok((self.occupy_slot(rows), waiting))
    }

    /// Put a call that was admitted aside into the queue of its rank and shape, unless it was released.
    pub fn enqueue(&mut self, handle: u64, waiting: WaitingCall) {
        let slot = &mut self.slots[handle as u32 as usize];
        if !slot.occupied || slot.generation != (handle >> 32) as u32 {
            return;
        }
        let (rank, shape) = (
            RANK_OF_CRITICALITY[waiting.call.criticality as usize & 3],
            Arc::clone(&waiting.call.shape),
        );
        slot.aside = false;
        self.rows_aside -= u64::from(slot.rows);
        self.rows_waiting += u64::from(slot.rows);
        slot.waiting = Some(waiting);
        let same = |queue: &&mut Queue| queue.rank == rank && Arc::ptr_eq(&queue.shape, &shape);
        match self.queues.iter_mut().find(same) {
            Some(queue) => queue.handles.push_back(handle),
            None => self.queues.push(Queue {
                shape,
                rank,
                handles: VecDeque::from([handle]),
            }),
        }
    }

    fn occupy_slot(&mut self, rows: u32) -> u64 {
        let index = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                rows: 0,
                occupied: false,
                aside: false,
                waiting: None,
            });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.rows = rows;
        slot.occupied = true;
        slot.aside = true;
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    /// Release a call, whether it was answered or not. False: it was released before.
    pub fn release(&mut self, handle: u64) -> bool {
        let (index, generation) = (handle as u32, (handle >> 32) as u32);
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return false;
        };
        if !slot.occupied || slot.generation != generation {
            return false;
        }
        slot.occupied = false;
        self.rows_inside -= u64::from(slot.rows);
        if slot.waiting.take().is_some() {
            self.rows_waiting -= u64::from(slot.rows);
        }
        if std::mem::take(&mut slot.aside) {
            self.rows_aside -= u64::from(slot.rows);
        }
        self.free_slots.push(index);
        true
    }

    /// The call with this handle, if it still waits.
    fn waiting(&self, handle: u64) -> Option<&WaitingCall> {
        let slot = &self.slots[handle as u32 as usize];
        if slot.generation == (handle >> 32) as u32 {
            slot.waiting.as_ref()
        } else {
            None
        }
    }

    /// Take a batch of up to `rows_max` rows, and at least one call. None: no call waits.
    ///
    /// The model is that of the oldest call of the first rank. Calls of further ranks of the same
    /// model follow while there is room.
    pub fn take(&mut self, rows_max: usize, now_ns: i64) -> Option<CallColumns> {
        // Take from the model's queues, rank by rank.
        let first = self.first_queue()?;
        let (first_rank, shape) = (self.queues[first].rank, Arc::clone(&self.queues[first].shape));
        let (mut taken, mut rows) = (Vec::new(), 0);
        for rank in first_rank..=RANK_LAST {
            let same = |queue: &Queue| queue.rank == rank && Arc::ptr_eq(&queue.shape, &shape);
            if let Some(index) = self.queues.iter().position(same) {
                let mut handles = std::mem::take(&mut self.queues[index].handles);
                rows = self.take_from(&mut handles, &mut taken, rows, rows_max, now_ns);
                self.queues[index].handles = handles;
            }
        }
        // Tell the service rate whether it is measured under load.
        if self.rows_waiting > 0 {
            self.admission.rate.waiting(now_ns);
        } else {
            self.admission.rate.drained();
        }
        // Lay the calls out in the order in which they were admitted.
        if taken.windows(2).any(|pair| pair[0].1.sequence > pair[1].1.sequence) {
            taken.sort_unstable_by_key(|(_, waiting)| waiting.sequence);
        }
        Some(columns(shape, &taken, rows))
    }

    /// Take a turn: batches of several models, of up to `rows_max` rows together, and at least one
    /// call. Each is taken as `take` does. Empty: no call waits.
    pub fn take_turn(&mut self, rows_max: usize, now_ns: i64) -> Vec<CallColumns> {
        let (mut turn, mut rows) = (Vec::new(), 0);
        while let Some(index) = self.first_queue() {
            // A batch has at least one call, so ask first whether it fits.
            let next = self.queues[index].handles.front().and_then(|head| self.waiting(*head));
            let next_rows = next.map_or(0, |waiting| waiting.call.rows as usize);
            if !turn.is_empty() && rows + next_rows > rows_max {
                break;
            }
            let left = rows_max.saturating_sub(rows);
            let Some(columns) = self.take(left, now_ns) else {
                break;
            };
            rows += columns.row_offsets.last().copied().unwrap_or(0) as usize;
            turn.push(columns);
        }
        turn
    }

    /// Move calls of one queue to `taken`, up to `rows_max` rows in all. Returns the rows in `taken`.
    fn take_from(
        &mut self,
        handles: &mut VecDeque<u64>,
        taken: &mut Vec<(u64, WaitingCall)>,
        mut rows: usize,
        rows_max: usize,
        now_ns: i64,
    ) -> usize {
        let oldest = handles.iter().find_map(|handle| self.waiting(*handle));
        let newest_first =
            oldest.is_some_and(|waiting| now_ns - waiting.arrived_ns > NEWEST_FIRST_NS);
        while let Some(&handle) = if newest_first { handles.back() } else { handles.front() } {
            // Stop before a call that does not fit, unless it is the first.
            let call_rows = self.waiting(handle).map(|waiting| waiting.call.rows as usize);
            if call_rows.is_some_and(|count| !taken.is_empty() && rows + count > rows_max) {
                break;
            }
            if newest_first {
                handles.pop_back();
            } else {
                handles.pop_front();
            }
            // A call that was released meanwhile is skipped.
            if let Some(count) = call_rows {
                if let Some(waiting) = self.slots[handle as u32 as usize].waiting.take() {
                    taken.push((handle, waiting));
                    self.rows_waiting -= count as u64;
                    rows += count;
                }
            }
        }
        rows
    }

    /// The index of the queue to take from: the first rank, and in it the call that arrived first.
    fn first_queue(&mut self) -> Option<usize> {
        let mut first: Option<(usize, i64, usize)> = None;
        for index in 0..self.queues.len() {
            // Drop handles of released calls from the front.
            while let Some(&head) = self.queues[index].handles.front() {
                if let Some(waiting) = self.waiting(head) {
                    let (rank, arrived_ns) = (self.queues[index].rank, waiting.arrived_ns);
                    if first.is_none_or(|(best_rank, best_ns, _)| {
                        (rank, arrived_ns) < (best_rank, best_ns)
                    }) {
                        first = Some((rank, arrived_ns, index));
                    }
                    break;
                }
                self.queues[index].handles.pop_front();
            }
        }
        first.map(|(_, _, index)| index)
    }

    /// Remove the queues in which no call waits, so that queues of replaced shapes do not stay.
    pub fn remove_empty_queues(&mut self) {
        self.queues.retain(|queue| !queue.handles.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call of so many rows without entities and inputs.
    fn call(rows: u32) -> Call {
        Call {
            shape: Arc::default(),
            rows,
            criticality: 0,
            sticky: 0,
            request_id: 0,
            pin: 0,
            any_version: false,
            block: Vec::new(),
        }
    }

    #[test]
    fn call_queue_counts_calls_aside_as_inside_and_not_as_ahead() {
        let mut queue = CallQueue::new(Admission::new(1_000, 100, 100));
        // A row takes a millisecond.
        queue.admission.rate.waiting(0);
        queue.admission.rate.answered(100, 100_000_000);
        // Fifty rows aside delay no call. Once they wait for Python and are taken, they do.
        let (handle, waiting) = queue.admit_aside(call(50), 0, i64::MAX).expect("an idle worker");
        assert_eq!((queue.rows_inside(), queue.rows_waiting(), queue.rows_ahead()), (50, 0, 0));
        let soon = queue.admit_aside(call(1), 0, 10_000_000).expect("nothing is ahead of it");
        queue.enqueue(handle, waiting);
        assert_eq!((queue.rows_inside(), queue.rows_waiting(), queue.rows_ahead()), (51, 50, 0));
        queue.take(100, 0).expect("a call waits");
        assert_eq!((queue.rows_waiting(), queue.rows_ahead()), (0, 50));
        assert!(queue.admit_aside(call(1), 0, 10_000_000).is_err());
        // What is released is no longer aside or inside.
        assert!(queue.release(soon.0) && queue.release(handle));
        assert_eq!((queue.rows_inside(), queue.rows_ahead(), queue.rows_aside), (0, 0, 0));
    }
}
