//! A group: the calls of one model that were handed over in one turn, from their columns to their
//! answers.
//!
//! This is the usual case of gateway/predict: production answers every call, and nothing fails. The
//! bits are those of routing.py, feature_lookup.py, prediction_ids.py and dispatch.py there
//! (tests/gateway/predict/test_turns.py).

use std::borrow::Cow;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::accel::answered_group::{owned_slices, to_bytes, AnswerTimes, AnsweredGroup};
use crate::accel::ids::{self, AnswerIds, BODY_BYTES};
use crate::accel::rows::{RowBatch, ViewRows, DEFAULTED, DEGRADED};
use crate::accel::score_code::ScoreRule;
use crate::calls::call_columns::CallColumns;
use crate::calls::columns::Column;
use crate::calls::reply::Replies;
use crate::sys::floats::floats;

/// turnout.v1.RowFlag: the call has no sticky key.
const NOT_STICKY: u32 = 16;
const DAY_MS: i64 = 86_400_000;
/// All buckets, in basis points.
const ALL_BP: u64 = 10_000;
/// Offset and length of the time in a prediction id.
const TIME_AT: usize = 32;
const TIME_BYTES: usize = 6;

/// The keys of a group's C calls, and what is drawn from them.
pub struct Assignment {
    /// The sticky keys, and (C + 1,) offsets into them.
    keys: (Vec<u8>, Vec<u32>),
    /// (C,) evidence keys.
    key_hash: Vec<u64>,
    /// (C,) 1 for a call in the holdout, else 0. Empty: the model has no holdout.
    held_out: Vec<u8>,
    /// (C,) NOT_STICKY or 0, for every row of the call.
    flags: Vec<u32>,
}

/// A salted draw by key: the bytes that are hashed before a key, and the buckets that are drawn.
pub struct Draw {
    /// Salt and domain.
    pub prefix: Vec<u8>,
    /// Buckets of 10,000.
    pub share_bp: u64,
}

/// What the prediction ids of one answer are made of, beside its calls.
pub struct IdParts<'a> {
    /// The cluster's key.
    pub key: &'a [u8; 32],
    /// An id without its MAC and its time.
    pub body: [u8; BODY_BYTES],
    /// How scores are written.
    pub rule: ScoreRule,
    /// Masks the scores.
    pub masking_key: &'a [u8; 32],
    /// Seals the ids. None: they can be read.
    pub sealing_key: Option<&'a [u8; 32]>,
}

/// The calls of one model in a turn, and what is known of them so far.
pub struct Group {
    /// What the server decoded of its C calls with R rows.
    pub columns: CallColumns,
    assignment: Option<Assignment>,
    /// (R, W) float32 as bytes: stored features, request inputs, the request's time.
    pub matrix: Vec<u8>,
    /// (R,) turnout.v1.RowFlag bits of the stored rows.
    pub flags: Vec<u32>,
    /// Stored rows with a wrong hash or id.
    pub broken: usize,
    /// (R, K), once the group is scored.
    scores: Vec<f32>,
}

impl Group {
    /// A group of which nothing but its calls is known.
    pub fn new(columns: CallColumns) -> Group {
        Group {
            columns,
            assignment: None,
            matrix: Vec::new(),
            flags: Vec::new(),
            broken: 0,
            scores: Vec::new(),
        }
    }

    /// C, the number of calls.
    pub fn calls(&self) -> usize {
        self.columns.handles.len()
    }

    /// R, the number of rows.
    pub fn rows(&self) -> usize {
        self.columns.row_offsets.last().copied().unwrap_or(0) as usize
    }

    /// Draw what follows from the keys. False: a call has neither a key nor a request id, or pins a
    /// version, or has more rows than an id can hold.
    pub fn assign(&mut self, evidence_prefix: &[u8], holdout: Option<&Draw>) -> bool {
        let columns = &self.columns;
        let too_long = |pair: &[u32]| pair[1] - pair[0] > u32::from(u16::MAX);
        if !columns.pins.is_empty() || columns.row_offsets.windows(2).any(too_long) {
            return false;
        }
        let calls = self.calls();
        let mut assignment = Assignment {
            keys: (Vec::with_capacity(16 * calls), Vec::with_capacity(calls + 1)),
            key_hash: Vec::with_capacity(calls),
            held_out: Vec::new(),
            flags: Vec::with_capacity(calls),
        };
        assignment.keys.1.push(0);
        let mut hashed = Vec::with_capacity(evidence_prefix.len() + 64);
        let mut hash = |prefix: &[u8], key: &[u8]| {
            hashed.clear();
            hashed.extend_from_slice(prefix);
            hashed.extend_from_slice(key);
            xxh3_64(&hashed)
        };
        for call in 0..calls {
            // The sticky key is the call's own, else the first key of its first row.
            let entity = self.first_entity(call);
            let own = item(&columns.sticky, call);
            let sticky = if own.is_empty() { entity } else { own };
            let key = if sticky.is_empty() { item(&columns.request_ids, call) } else { sticky };
            if key.is_empty() {
                return false;
            }
            assignment.flags.push(if sticky.is_empty() { NOT_STICKY } else { 0 });
            assignment.key_hash.push(hash(evidence_prefix, key));
            // The holdout is drawn by customer, whatever the sticky key is.
            if let Some(draw) = holdout {
                let customer = if entity.is_empty() { key } else { entity };
                let bucket = hash(&draw.prefix, customer) % ALL_BP;
                assignment.held_out.push(u8::from(bucket < draw.share_bp));
            }
            assignment.keys.0.extend_from_slice(key);
            assignment.keys.1.push(assignment.keys.0.len() as u32);
        }
        self.assignment = Some(assignment);
        true
    }

    fn first_entity(&self, call: usize) -> &[u8] {
        if self.columns.shape.entities == 0 {
            return &[];
        }
        self.entity(self.columns.row_offsets[call] as usize, 0)
    }

    /// The entity id of a row at `position` among its ids.
    pub fn entity(&self, row: usize, position: usize) -> &[u8] {
        item(&self.columns.entity_ids, row * self.columns.shape.entities + position)
    }

    /// Take what the store returned for each row, view by view, and make the matrix.
    ///
    /// `views` are the readers, each with the position of its entity. `time` says whether the time of the
    /// request, `now_ms`, has columns. False: the replies do not fit.
    pub fn read(
        &mut self,
        views: &[(Arc<ViewRows>, usize)],
        replies: &[Option<&[u8]>],
        now_ms: i64,
        time: bool,
    ) -> bool {
        let rows = self.rows();
        if replies.len() != rows * views.len() {
            return false;
        }
        // Read each view, and join the flags of its rows.
        let mut flags = vec![0; rows];
        let mut blocks = Vec::with_capacity(views.len());
        for (index, (view, position)) in views.iter().enumerate() {
            let mut read = RowBatch::default();
            read.values.reserve(rows * view.values_bytes());
            for row in 0..rows {
                let reply = replies[index * rows + row];
                view.read(reply, self.entity(row, *position), now_ms, &mut read);
            }
            flags.iter_mut().zip(&read.flags).for_each(|(all, flag)| *all |= flag);
            self.broken += read.broken;
            blocks.push((read.values, view.values_bytes()));
        }
        self.flags = flags;
        // Join the columns row by row, unless there is one block only.
        let input_bytes = self.columns.shape.width() * 4;
        let time = if time { time_columns(now_ms) } else { Vec::new() };
        if time.is_empty() && input_bytes == 0 && blocks.len() == 1 {
            self.matrix = blocks.remove(0).0;
            return true;
        }
        let stored_bytes: usize = blocks.iter().map(|(_, bytes)| bytes).sum();
        self.matrix = Vec::with_capacity(rows * (stored_bytes + input_bytes + time.len()));
        for row in 0..rows {
            for (values, bytes) in &blocks {
                self.matrix.extend_from_slice(&values[row * bytes..(row + 1) * bytes]);
            }
            let inputs = &self.columns.inputs[row * input_bytes..(row + 1) * input_bytes];
            self.matrix.extend_from_slice(inputs);
            self.matrix.extend_from_slice(&time);
        }
        true
    }

    /// Make the matrix of each view's defaults, because the store did not answer.
    pub fn read_defaults(
        &mut self,
        views: &[(Arc<ViewRows>, usize)],
        now_ms: i64,
        time: bool,
    ) -> bool {
        let was_read = self.read(views, &vec![None; self.rows() * views.len()], now_ms, time);
        self.flags.fill(DEFAULTED | DEGRADED);
        was_read
    }

    /// The matrix as numbers, which are copied only if its bytes are not aligned.
    pub fn inputs(&self) -> Cow<'_, [f32]> {
        let copied = || Cow::Owned(Column::new(&self.matrix).iter().collect());
        floats(&self.matrix).map_or_else(copied, Cow::Borrowed)
    }

    /// Take the (R, K) scores, or give them back if they are not R x K finite numbers.
    pub fn take_scores(&mut self, scores: Vec<f32>, outputs: usize) -> Result<(), Vec<f32>> {
        let fits =
            scores.len() == self.rows() * outputs && scores.iter().all(|score| score.is_finite());
        if !fits {
            return Err(scores);
        }
        self.scores = scores;
        Ok(())
    }

    /// Make the answers of the calls: what the server sends, and what the recorder keeps.
    ///
    /// None: the group was not assigned, read and scored.
    pub fn answer(
        &mut self,
        parts: &IdParts,
        first: u32,
        answered: &AnswerTimes,
        reply: Replies,
    ) -> Option<(Replies, AnsweredGroup)> {
        let assignment = self.assignment.take()?;
        let columns = &mut self.columns;
        let (calls, rows) = (columns.handles.len(), self.flags.len());
        let scores = std::mem::take(&mut self.scores);
        if scores.len() != rows * reply.outputs || rows == 0 {
            return None;
        }
        // Each row has the flags of its call, too.
        let mut flags = self.flags.clone();
        let (mut first_scores, mut row_counts) =
            (Vec::with_capacity(calls), Vec::with_capacity(calls));
        for (call, ends) in columns.row_offsets.windows(2).enumerate() {
            let range = ends[0] as usize..ends[1] as usize;
            first_scores.push(scores[range.start * reply.outputs]);
            row_counts.push(range.len() as u16);
            flags[range].iter_mut().for_each(|flag| *flag |= assignment.flags[call]);
        }
        // The ids.
        let mut body = parts.body;
        let at_ms = answered.unix_ns.div_euclid(1_000_000).to_le_bytes();
        body[TIME_AT..TIME_AT + TIME_BYTES].copy_from_slice(&at_ms[..TIME_BYTES]);
        let ids = ids::prediction_ids(
            AnswerIds {
                key: parts.key,
                body: &body,
                first,
                key_hashes: &assignment.key_hash,
                held_out: &assignment.held_out,
                scores: &first_scores,
                rows: &row_counts,
                rule: parts.rule,
                masking_key: parts.masking_key,
            },
            parts.sealing_key,
        );
        // The record, as columns of bytes.
        let record = AnsweredGroup {
            key_hash: to_bytes(&assignment.key_hash, |hash| hash.to_le_bytes()),
            arrived_ns: to_bytes(&columns.arrived_ns, |ns| ns.to_le_bytes()),
            row_offsets: to_bytes(&columns.row_offsets, |row| row.to_le_bytes()),
            held_out: assignment.held_out.clone(),
            flags: to_bytes(&flags, |flag| flag.to_le_bytes()),
            matrix: std::mem::take(&mut self.matrix),
            scores: to_bytes(&scores, |score| score.to_le_bytes()),
            times: *answered,
            read_unix_ns: Vec::new(),
            entities: owned_slices(std::mem::take(&mut columns.entity_ids)),
            keys: owned_slices(assignment.keys),
            ids: ids.clone(),
        };
        let replies = Replies {
            handles: columns.handles.clone(),
            holdout: assignment.held_out,
            prediction_ids: ids,
            row_offsets: columns.row_offsets.clone(),
            scores,
            row_flags: flags,
            ..reply
        };
        Some((replies, record))
    }
}

/// The time of a request as columns of a row: days since 1970 and seconds of the day, float32 as bytes. They
/// are those of `request_time` in features/contract.py.
fn time_columns(unix_ms: i64) -> Vec<u8> {
    let day = unix_ms.div_euclid(DAY_MS);
    let second = unix_ms.rem_euclid(DAY_MS) / 1_000;
    to_bytes(&[day as f32, second as f32], |column| column.to_le_bytes())
}

/// Item `index` of a buffer with offsets.
fn item((bytes, offsets): &(Vec<u8>, Vec<u32>), index: usize) -> &[u8] {
    &bytes[offsets[index] as usize..offsets[index + 1] as usize]
}
