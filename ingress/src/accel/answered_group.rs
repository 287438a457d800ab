//! The answered calls of one model, as the fold after the reply takes them: the calls of a group of
//! a turn, or calls that were answered alone and are added one by one.

use crate::accel::observations::{Batch, ParticipantResult, ReadTimes, Slices};
use crate::calls::columns::Column;

/// When the calls of a group were read and answered.
#[derive(Clone, Copy)]
pub struct AnswerTimes {
    /// Unix time of the answer.
    pub unix_ns: i64,
    /// Unix time at which the features were read.
    pub read_unix_ns: i64,
    /// Monotonic time of the answer.
    pub answered_ns: i64,
}

/// The answered calls of a group, as `FaultFreeBatches` takes a batch.
pub struct AnsweredGroup {
    pub(super) key_hash: Vec<u8>,
    pub(super) arrived_ns: Vec<u8>,
    pub(super) row_offsets: Vec<u8>,
    pub(super) held_out: Vec<u8>,
    pub(super) flags: Vec<u8>,
    pub(super) matrix: Vec<u8>,
    pub(super) scores: Vec<u8>,
    pub(super) times: AnswerTimes,
    /// (C,) when the features of each call were read. Empty: all at `times.read_unix_ns`.
    pub(super) read_unix_ns: Vec<u8>,
    pub(super) entities: (Vec<u8>, Vec<u8>),
    pub(super) keys: (Vec<u8>, Vec<u8>),
    pub(super) ids: Vec<u8>,
}

/// One call of one row that production answered alone, outside any turn.
pub struct SingleAnswer<'a> {
    /// The hash of its evidence key.
    pub key_hash: u64,
    /// Whether it is in the holdout. None: the model has no holdout.
    pub held_out: Option<bool>,
    /// Monotonic time of its arrival.
    pub arrived_ns: i64,
    /// When it was read and answered.
    pub times: AnswerTimes,
    /// turnout.v1.RowFlag bits of its row and of the call.
    pub flags: u32,
    /// (W,) float32 as bytes: stored features, request inputs, the request's time.
    pub matrix: &'a [u8],
    /// (K,) the outputs, all finite.
    pub scores: &'a [f32],
    /// (E,) its entity ids.
    pub entities: &'a [&'a [u8]],
    /// The 64 bytes of its prediction id.
    pub prediction_id: &'a [u8],
}

impl AnsweredGroup {
    /// A group without calls, to which single answers are added. `times` are the first one's.
    pub fn empty(times: AnswerTimes) -> AnsweredGroup {
        let zero = 0_u32.to_le_bytes().to_vec();
        AnsweredGroup {
            key_hash: Vec::new(),
            arrived_ns: Vec::new(),
            row_offsets: zero.clone(),
            held_out: Vec::new(),
            flags: Vec::new(),
            matrix: Vec::new(),
            scores: Vec::new(),
            times,
            read_unix_ns: Vec::new(),
            entities: (Vec::new(), zero.clone()),
            keys: (Vec::new(), zero),
            ids: Vec::new(),
        }
    }

    /// Add a call of one row. It gets no sticky key, which only shadows need: a model with shadows
    /// answers no call alone.
    pub fn add(&mut self, answer: &SingleAnswer) {
        let call = self.key_hash.len() / 8;
        // A group has one answer time, that of its first call. The arrival of a later call is moved
        // so that its latency stays the same.
        let arrived_ns = answer.arrived_ns - answer.times.answered_ns + self.times.answered_ns;
        self.key_hash.extend_from_slice(&answer.key_hash.to_le_bytes());
        self.arrived_ns.extend_from_slice(&arrived_ns.to_le_bytes());
        self.row_offsets.extend_from_slice(&(call as u32 + 1).to_le_bytes());
        self.held_out.extend(answer.held_out.map(u8::from));
        self.flags.extend_from_slice(&answer.flags.to_le_bytes());
        self.matrix.extend_from_slice(answer.matrix);
        answer.scores.iter().for_each(|score| self.scores.extend_from_slice(&score.to_le_bytes()));
        self.read_unix_ns.extend_from_slice(&answer.times.read_unix_ns.to_le_bytes());
        for entity in answer.entities {
            self.entities.0.extend_from_slice(entity);
            self.entities.1.extend_from_slice(&(self.entities.0.len() as u32).to_le_bytes());
        }
        self.keys.1.extend_from_slice(&0_u32.to_le_bytes());
        self.ids.extend_from_slice(answer.prediction_id);
    }

    /// Add the calls of another group of the same model and revision.
    pub fn append(&mut self, other: &AnsweredGroup) {
        // One answer time and one number of rows stand for both groups, as in `add`.
        let shift_ns = self.times.answered_ns - other.times.answered_ns;
        for arrived_ns in Column::<i64>::new(&other.arrived_ns).iter() {
            self.arrived_ns.extend_from_slice(&(arrived_ns + shift_ns).to_le_bytes());
            self.read_unix_ns.extend_from_slice(&other.times.read_unix_ns.to_le_bytes());
        }
        append_ends(&mut self.row_offsets, &other.row_offsets);
        for (own, further) in [
            (&mut self.key_hash, &other.key_hash),
            (&mut self.held_out, &other.held_out),
            (&mut self.flags, &other.flags),
            (&mut self.matrix, &other.matrix),
            (&mut self.scores, &other.scores),
            (&mut self.ids, &other.ids),
        ] {
            own.extend_from_slice(further);
        }
        for (own, further) in [(&mut self.entities, &other.entities), (&mut self.keys, &other.keys)]
        {
            own.0.extend_from_slice(&further.0);
            append_ends(&mut own.1, &further.1);
        }
    }

    /// When its calls were read and answered.
    pub fn times(&self) -> AnswerTimes {
        self.times
    }

    /// Bytes of its columns.
    pub fn bytes(&self) -> usize {
        [
            &self.key_hash,
            &self.arrived_ns,
            &self.row_offsets,
            &self.held_out,
            &self.flags,
            &self.matrix,
            &self.scores,
            &self.read_unix_ns,
            &self.entities.0,
            &self.entities.1,
            &self.keys.0,
            &self.keys.1,
            &self.ids,
        ]
        .iter()
        .map(|column| column.len())
        .sum()
    }

    /// The group as a batch without a fault, in which production answered every call.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            arms: None,
            key_hash: Column::new(&self.key_hash),
            arrived_ns: Column::new(&self.arrived_ns),
            row_offsets: Column::new(&self.row_offsets),
            held_out: (!self.held_out.is_empty()).then_some(&self.held_out),
            flags: Column::new(&self.flags),
            matrix: Column::new(&self.matrix),
            read_unix_ns: if self.read_unix_ns.is_empty() {
                ReadTimes::Batch(self.times.read_unix_ns)
            } else {
                ReadTimes::Calls(Column::new(&self.read_unix_ns))
            },
            entities: borrowed_slices(&self.entities),
            keys: borrowed_slices(&self.keys),
            production: ParticipantResult {
                scores: Column::new(&self.scores),
                answered_ns: self.times.answered_ns,
                done_ns: self.times.answered_ns,
                overdue: false,
                ids: &self.ids,
            },
            canary: None,
        }
    }
}

/// Append offsets that begin with 0 to others, whose last one is where the new ones begin.
fn append_ends(offsets: &mut Vec<u8>, further: &[u8]) {
    let own = Column::<u32>::new(offsets);
    let first = own.at(own.len() - 1);
    for offset in Column::<u32>::new(further).iter().skip(1) {
        offsets.extend_from_slice(&(first + offset).to_le_bytes());
    }
}

/// The bytes of the numbers, one number after the other.
pub(super) fn to_bytes<T: Copy, const N: usize>(
    values: &[T],
    bytes_of: impl Fn(T) -> [u8; N],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * N);
    for value in values {
        bytes.extend_from_slice(&bytes_of(*value));
    }
    bytes
}

/// A buffer with (N + 1,) offsets, both as bytes.
pub(super) fn owned_slices((buffer, offsets): (Vec<u8>, Vec<u32>)) -> (Vec<u8>, Vec<u8>) {
    (buffer, to_bytes(&offsets, |offset| offset.to_le_bytes()))
}

/// Each item ends where the next one starts.
fn borrowed_slices((buffer, offsets): &(Vec<u8>, Vec<u8>)) -> Slices<'_> {
    Slices {
        buffer,
        starts: Column::new(&offsets[..offsets.len() - 4]),
        ends: Column::new(&offsets[4..]),
    }
}
