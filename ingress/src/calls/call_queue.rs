//! Calls that wait, and the columns they become: gateway/intake.py's order.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::calls::admission::Admission;
use crate::calls::shape::{Call, Refusal, Shape};

const RANK_OF_CRITICALITY: [usize; 4] = [1, 0, 1, 2];
const NEWEST_FIRST_NS: i64 = 100_000_000;

/// One call inside: admitted and not yet answered.
struct Slot {
    generation: u32,
    rows: u32,
    /// None once it is taken, or gone.
    waiting: Option<WaitingCall>,
    held: bool,
}

struct WaitingCall {
    call: Call,
    arrived_ns: i64,
    deadline_ns: i64,
    order: u64,
}

/// Calls of one rank and one shape.
struct Queue {
    shape: Arc<Shape>,
    rank: usize,
    calls: VecDeque<u64>,
}

/// Queues by criticality and model, behind an admission; rows are inside from `enter` to `leave`.
pub struct CallQueue {
    /// Who may come in.
    pub admission: Admission,
    slots: Vec<Slot>,
    free: Vec<u32>,
    queues: Vec<Queue>,
    order: u64,
    rows_inside: u64,
    rows_waiting: u64,
}

/// gateway.columns.Calls, as bytes of its arrays.
pub struct Columns {
    /// The calls' model.
    pub shape: Arc<Shape>,
    /// Handles, uint64.
    pub handles: Vec<u64>,
    /// int64.
    pub arrived_ns: Vec<i64>,
    /// int64.
    pub deadline_ns: Vec<i64>,
    /// uint8.
    pub criticality: Vec<u8>,
    /// (C + 1,) uint32.
    pub row_offsets: Vec<u32>,
    /// UTF-8, with (C + 1,) offsets.
    pub sticky: (Vec<u8>, Vec<u32>),
    /// UTF-8, with (C + 1,) offsets.
    pub request_ids: (Vec<u8>, Vec<u32>),
    /// Few.
    pub pins: Vec<(usize, String)>,
    /// UTF-8, with (R * E + 1,) offsets.
    pub entity_ids: (Vec<u8>, Vec<u32>),
    /// (R, W) little-endian float32.
    pub inputs: Vec<u8>,
}

impl CallQueue {
    /// An empty one.
    pub fn new(admission: Admission) -> CallQueue {
        CallQueue {
            admission,
            slots: Vec::new(),
            free: Vec::new(),
            queues: Vec::new(),
            order: 0,
            rows_inside: 0,
            rows_waiting: 0,
        }
    }

    /// Rows admitted and not yet answered.
    pub fn rows_inside(&self) -> u64 {
        self.rows_inside
    }

    /// Calls admitted and not yet answered.
    pub fn calls_inside(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Rows not yet taken.
    pub fn rows_waiting(&self) -> u64 {
        self.rows_waiting
    }

    /// Admit a call and return its handle, or why it may not come in.
    pub fn enter(&mut self, call: Call, arrived_ns: i64, deadline_ns: i64) -> Result<u64, Refusal> {
        let rows = call.rows;
        let ahead = self.rows_inside - self.rows_waiting;
        let left_ns = deadline_ns - arrived_ns;
        let refusal = self.admission.refusal(
            u64::from(rows),
            call.criticality,
            self.rows_inside,
            ahead,
            left_ns,
        );
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let (rank, shape) =
            (RANK_OF_CRITICALITY[call.criticality as usize & 3], Arc::clone(&call.shape));
        self.order += 1;
        let waiting = WaitingCall {
            call,
            arrived_ns,
            deadline_ns,
            order: self.order,
        };
        let handle = self.place(rows, waiting);
        let same = |queue: &&mut Queue| queue.rank == rank && Arc::ptr_eq(&queue.shape, &shape);
        match self.queues.iter_mut().find(same) {
            Some(queue) => queue.calls.push_back(handle),
            None => self.queues.push(Queue {
                shape,
                rank,
                calls: VecDeque::from([handle]),
            }),
        }
        self.rows_inside += u64::from(rows);
        self.rows_waiting += u64::from(rows);
        Ok(handle)
    }

    fn place(&mut self, rows: u32, waiting: WaitingCall) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                rows: 0,
                waiting: None,
                held: false,
            });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.rows = rows;
        slot.waiting = Some(waiting);
        slot.held = true;
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    /// Free a call's rows, answered or not; a call that still waits will not be taken.
    pub fn leave(&mut self, handle: u64) -> bool {
        let (index, generation) = (handle as u32, (handle >> 32) as u32);
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return false;
        };
        if !slot.held || slot.generation != generation {
            return false;
        }
        slot.held = false;
        self.rows_inside -= u64::from(slot.rows);
        if slot.waiting.take().is_some() {
            self.rows_waiting -= u64::from(slot.rows);
        }
        self.free.push(index);
        true
    }

    /// A call that still waits.
    fn waiting(&self, handle: u64) -> Option<&WaitingCall> {
        let slot = &self.slots[handle as u32 as usize];
        if slot.generation == (handle >> 32) as u32 {
            slot.waiting.as_ref()
        } else {
            None
        }
    }

    /// Hand over calls of one model, those of the first kind and then its others.
    pub fn take(&mut self, rows_max: usize, now_ns: i64) -> Option<Columns> {
        let first = self.first()?;
        let (rank, shape) = (self.queues[first].rank, Arc::clone(&self.queues[first].shape));
        let (mut taken, mut rows) = (Vec::new(), 0);
        for rank in rank..=2 {
            let same = |queue: &Queue| queue.rank == rank && Arc::ptr_eq(&queue.shape, &shape);
            if let Some(index) = self.queues.iter().position(same) {
                let mut calls = std::mem::take(&mut self.queues[index].calls);
                rows = self.fill(&mut taken, &mut calls, rows, rows_max, now_ns);
                self.queues[index].calls = calls;
            }
        }
        if self.rows_waiting > 0 {
            self.admission.rate.waiting(now_ns);
        } else {
            self.admission.rate.drained();
        }
        if taken.windows(2).any(|pair| pair[0].1.order > pair[1].1.order) {
            taken.sort_unstable_by_key(|(_, waiting)| waiting.order);
        }
        Some(columns(shape, &taken, rows))
    }

    fn fill(
        &mut self,
        taken: &mut Vec<(u64, WaitingCall)>,
        calls: &mut VecDeque<u64>,
        mut rows: usize,
        rows_max: usize,
        now_ns: i64,
    ) -> usize {
        let oldest = calls.iter().find_map(|handle| self.waiting(*handle));
        let newest_first =
            oldest.is_some_and(|waiting| now_ns - waiting.arrived_ns > NEWEST_FIRST_NS);
        while let Some(&handle) = if newest_first { calls.back() } else { calls.front() } {
            let ahead = self.waiting(handle).map(|waiting| waiting.call.rows as usize);
            if ahead.is_some_and(|count| !taken.is_empty() && rows + count > rows_max) {
                break;
            }
            if newest_first {
                calls.pop_back();
            } else {
                calls.pop_front();
            }
            if let Some(count) = ahead {
                if let Some(waiting) = self.slots[handle as u32 as usize].waiting.take() {
                    taken.push((handle, waiting));
                    self.rows_waiting -= count as u64;
                    rows += count;
                }
            }
        }
        rows
    }

    /// The queue to take from now: the first rank, oldest among equals.
    fn first(&mut self) -> Option<usize> {
        let mut first: Option<(usize, i64, usize)> = None;
        for index in 0..self.queues.len() {
            while let Some(&head) = self.queues[index].calls.front() {
                if let Some(waiting) = self.waiting(head) {
                    let kind = (self.queues[index].rank, waiting.arrived_ns, index);
                    if first.is_none_or(|(rank, arrived, _)| (kind.0, kind.1) < (rank, arrived)) {
                        first = Some(kind);
                    }
                    break;
                }
                self.queues[index].calls.pop_front();
            }
        }
        first.map(|(_, _, index)| index)
    }

    /// Forget queues of models that are no more; those with calls in them stay.
    pub fn remove_empty_queues(&mut self) {
        self.queues.retain(|queue| !queue.calls.is_empty());
    }
}

/// Lay calls out as columns.
fn columns(shape: Arc<Shape>, taken: &[(u64, WaitingCall)], rows: usize) -> Columns {
    let calls = taken.len();
    let offsets = |count: usize| {
        let mut offsets = Vec::with_capacity(count + 1);
        offsets.push(0);
        offsets
    };
    let bytes: usize = taken.iter().map(|(_, waiting)| waiting.call.block.len()).sum();
    let inputs = rows * shape.width() * 4;
    let mut columns = Columns {
        handles: Vec::with_capacity(calls),
        arrived_ns: Vec::with_capacity(calls),
        deadline_ns: Vec::with_capacity(calls),
        criticality: Vec::with_capacity(calls),
        row_offsets: offsets(calls),
        sticky: (Vec::new(), offsets(calls)),
        request_ids: (Vec::new(), offsets(calls)),
        pins: Vec::new(),
        entity_ids: (Vec::with_capacity(bytes - inputs), offsets(rows * shape.entities)),
        inputs: Vec::with_capacity(inputs),
        shape,
    };
    let (mut row, mut end) = (0, 0_u32);
    for (place, (handle, waiting)) in taken.iter().enumerate() {
        let [inputs, lengths, ids, sticky, request_id, pin] = waiting.call.parts();
        columns.handles.push(*handle);
        columns.arrived_ns.push(waiting.arrived_ns);
        columns.deadline_ns.push(waiting.deadline_ns);
        columns.criticality.push(waiting.call.criticality);
        row += waiting.call.rows;
        columns.row_offsets.push(row);
        for (column, part) in
            [(&mut columns.sticky, sticky), (&mut columns.request_ids, request_id)]
        {
            column.0.extend_from_slice(part);
            column.1.push(column.0.len() as u32);
        }
        if !pin.is_empty() {
            columns.pins.push((place, String::from_utf8_lossy(pin).into_owned()));
        }
        for length in lengths {
            end += u32::from(*length);
            columns.entity_ids.1.push(end);
        }
        columns.entity_ids.0.extend_from_slice(ids);
        columns.inputs.extend_from_slice(inputs);
    }
    columns
}
