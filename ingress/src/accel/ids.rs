//! Prediction ids and key hashes for all calls of a batch.
//!
//! The bytes are those of journal/prediction_id.py and registry/types.py, which make one at a time.
//! tests/gateway/test_batch_keys.py compares both with each other and with tests/vectors.

use xxhash_rust::xxh3::xxh3_64;

use crate::accel::score_code::{code_of_score, ScoreRule};
use crate::sys::vectors::{self, Vectorized};

/// Bytes of a prediction id before its MAC.
pub const BODY_BYTES: usize = 56;
/// Bytes of a prediction id.
pub const ID_BYTES: usize = 64;
/// Offsets of the fields that differ from call to call.
const ROLE_AT: usize = 1;
const SEQUENCE_AT: usize = 4;
const SCORE_AT: usize = 30;
const ROWS_AT: usize = 38;
const KEY_HASH_AT: usize = 40;
/// Offsets of the fields that masks are made of.
const TIME_AT: usize = 32;
const BOOT_ID_AT: usize = 48;
/// Bits of the role's byte.
const BFLOAT16_BIT: u8 = 0x20;
const POSITIVE_BIT: u8 = 0x40;
const HOLDOUT_BIT: u8 = 0x80;
/// Ids in a group that shares a stream of masks, and the unit of their time, as powers of two.
const GROUP_BITS: u32 = 3;
const TIME_BITS: u32 = 20;

/// What the ids of one answer are made of.
pub struct AnswerIds<'a> {
    /// The cluster's key.
    pub key: &'a [u8; 32],
    /// An id without its MAC, with the fields that all calls share.
    pub body: &'a [u8; BODY_BYTES],
    /// The sequence number of the first call.
    pub first: u32,
    /// The evidence key of each call.
    pub key_hashes: &'a [u64],
    /// A byte for each call, not 0 if the call is in the holdout. Empty if no call is.
    pub held_out: &'a [u8],
    /// The first score of each call.
    pub scores: &'a [f32],
    /// The number of rows of each call.
    pub rows: &'a [u16],
    /// How the scores are written.
    pub rule: ScoreRule,
    /// Masks the scores.
    pub masking_key: &'a [u8; 32],
}

/// The prediction ids of a batch's calls, one after the other, made with the widest vectors that this
/// processor has.
///
/// With `sealing_key` nobody else can read the ids' fields.
pub fn prediction_ids(answer: AnswerIds, sealing_key: Option<&[u8; 32]>) -> Vec<u8> {
    let mut ids = vectors::run(answer);
    // Sealing is a pass of its own, so that the code of other ids stays small.
    if let Some(key) = sealing_key {
        vectors::run(Sealing {
            key,
            ids: &mut ids,
        });
    }
    ids
}

impl Vectorized for AnswerIds<'_> {
    type Output = Vec<u8>;

    fn run_portable(self) -> Vec<u8> {
        prediction_ids_by::<4>(self)
    }

    #[inline(always)]
    fn run_avx2(self) -> Vec<u8> {
        prediction_ids_by::<8>(self)
    }
}

/// `prediction_ids`, with the MACs of LANES ids computed together: as many as fit a vector.
#[inline(always)]
fn prediction_ids_by<const LANES: usize>(answer: AnswerIds) -> Vec<u8> {
    let AnswerIds {
        key,
        body,
        first,
        ..
    } = answer;
    let keyed = KeyedBlake2s::new(key, MAC_BYTES);
    let masks = score_masks::<LANES>(&answer);
    // Write the bodies.
    let mut ids = vec![0; answer.key_hashes.len() * ID_BYTES];
    for (index, id) in ids.chunks_exact_mut(ID_BYTES).enumerate() {
        id[..BODY_BYTES].copy_from_slice(body);
        let sequence = first.wrapping_add(index as u32);
        id[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&sequence.to_le_bytes());
        id[ROWS_AT..ROWS_AT + 2].copy_from_slice(&answer.rows[index].to_le_bytes());
        let key_hash = answer.key_hashes[index];
        id[KEY_HASH_AT..KEY_HASH_AT + 8].copy_from_slice(&key_hash.to_le_bytes());
        // The score and its two bits, masked.
        let score = answer.scores[index];
        let (code, bfloat16) = code_of_score(score, answer.rule.probability);
        let positive = f64::from(score) >= answer.rule.threshold;
        let mask = masks[index + (first & 7) as usize];
        id[SCORE_AT..SCORE_AT + 2].copy_from_slice(&(code ^ mask as u16).to_le_bytes());
        let bits = (u8::from(bfloat16) * BFLOAT16_BIT) | (u8::from(positive) * POSITIVE_BIT);
        id[ROLE_AT] |= bits ^ ((mask >> 16 & 3) as u8 * BFLOAT16_BIT);
        if answer.held_out.get(index).is_some_and(|out| *out != 0) {
            id[ROLE_AT] |= HOLDOUT_BIT;
        }
    }
    // Append the MACs, LANES at a time and the rest one by one.
    let mut groups = ids.chunks_exact_mut(ID_BYTES * LANES);
    for ids in &mut groups {
        keyed.append_macs::<LANES>(ids);
    }
    for id in groups.into_remainder().chunks_exact_mut(ID_BYTES) {
        keyed.append_macs::<1>(id);
    }
    ids
}

/// The masks of whole groups of ids, from the group of the first id on.
#[inline(always)]
fn score_masks<const LANES: usize>(answer: &AnswerIds) -> Vec<u32> {
    let field = |at: usize, bytes: usize| {
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(&answer.body[at..at + bytes]);
        u64::from_le_bytes(value)
    };
    let (boot_id, time) = (field(BOOT_ID_AT, 8), field(TIME_AT, 6) >> TIME_BITS);
    let keyed = KeyedBlake2s::new(answer.masking_key, STREAM_BYTES);
    let first = answer.first >> GROUP_BITS;
    let last = (answer.first & 7) as usize + answer.key_hashes.len();
    let count = last.div_ceil(1 << GROUP_BITS);
    let mut masks = Vec::with_capacity(count << GROUP_BITS);
    // Groups wrap together with the sequence.
    let group = |index: usize| first.wrapping_add(index as u32) & (u32::MAX >> GROUP_BITS);
    let whole = count / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        keyed.append_masks::<LANES>(
            boot_id,
            time,
            std::array::from_fn(|n| group(start + n)),
            &mut masks,
        );
    }
    for index in whole..count {
        keyed.append_masks::<1>(boot_id, time, [group(index)], &mut masks);
    }
    masks
}

/// Ids that are sealed in place.
struct Sealing<'a> {
    key: &'a [u8; 32],
    ids: &'a mut [u8],
}

impl Vectorized for Sealing<'_> {
    type Output = ();

    fn run_portable(self) {
        seal_by::<4>(self.key, self.ids)
    }

    #[inline(always)]
    fn run_avx2(self) {
        seal_by::<8>(self.key, self.ids)
    }
}

/// Seal ids, LANES at a time and the rest one by one.
#[inline(always)]
fn seal_by<const LANES: usize>(key: &[u8; 32], ids: &mut [u8]) {
    let keyed = KeyedBlake2s::new(key, STREAM_BYTES);
    let mut groups = ids.chunks_exact_mut(ID_BYTES * LANES);
    for ids in &mut groups {
        keyed.seal::<LANES>(ids);
    }
    for id in groups.into_remainder().chunks_exact_mut(ID_BYTES) {
        keyed.seal::<1>(id);
    }
}

/// xxh3_64 of `prefix` followed by each item. Item i is buffer[starts[i]..ends[i]].
///
/// None if an item does not lie in the buffer.
pub fn hashes(prefix: &[u8], buffer: &[u8], starts: &[u32], ends: &[u32]) -> Option<Vec<u64>> {
    if starts.len() != ends.len() {
        return None;
    }
    let mut joined = Vec::with_capacity(prefix.len() + 160);
    let mut hash = |(start, end): (&u32, &u32)| {
        let item = buffer.get(*start as usize..*end as usize)?;
        joined.clear();
        joined.extend_from_slice(prefix);
        joined.extend_from_slice(item);
        Some(xxh3_64(&joined))
    };
    starts.iter().zip(ends).map(&mut hash).collect()
}

/// BLAKE2s (RFC 7693) with a key of 32 bytes. This is the state after the block with the key.
pub struct KeyedBlake2s([u32; 8]);

const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const SIGMA: [[usize; 16]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
const BLOCK_BYTES: usize = 64;
const MAC_BYTES: usize = 8;
/// Bytes of one digest of the stream that seals an id. Two digests seal a body.
const STREAM_BYTES: usize = 32;

/// One word of N blocks, with a lane for each block.
type Word<const N: usize> = [u32; N];

impl KeyedBlake2s {
    /// Compress the block with the key, for digests of `digest_bytes`.
    pub fn new(key: &[u8; 32], digest_bytes: usize) -> KeyedBlake2s {
        let mut state = IV.map(|word| [word]);
        state[0][0] ^= 0x0101_0000 | (key.len() as u32) << 8 | digest_bytes as u32;
        let mut words = [[0]; 16];
        fill(&mut words, 0, key);
        compress(&mut state, &words, BLOCK_BYTES as u32, false);
        KeyedBlake2s(state.map(|word| word[0]))
    }

    /// Write the MACs of N ids behind their bodies.
    #[inline(always)]
    pub fn append_macs<const N: usize>(&self, ids: &mut [u8]) {
        let mut words = [[0; N]; 16];
        for (lane, id) in ids.chunks_exact(ID_BYTES).enumerate() {
            fill(&mut words, lane, &id[..BODY_BYTES]);
        }
        let mut state = self.0.map(|word| [word; N]);
        compress(&mut state, &words, (BLOCK_BYTES + BODY_BYTES) as u32, true);
        for (lane, id) in ids.chunks_exact_mut(ID_BYTES).enumerate() {
            id[BODY_BYTES..BODY_BYTES + 4].copy_from_slice(&state[0][lane].to_le_bytes());
            id[BODY_BYTES + 4..].copy_from_slice(&state[1][lane].to_le_bytes());
        }
    }

    /// Append the eight masks of each of N groups of ids.
    #[inline(always)]
    pub fn append_masks<const N: usize>(
        &self,
        boot_id: u64,
        time: u64,
        groups: [u32; N],
        masks: &mut Vec<u32>,
    ) {
        // The message is three numbers of eight bytes.
        let mut words = [[0; N]; 16];
        for (word, number) in [boot_id, time].into_iter().enumerate() {
            words[2 * word] = [number as u32; N];
            words[2 * word + 1] = [(number >> 32) as u32; N];
        }
        words[4] = groups;
        let mut state = self.0.map(|word| [word; N]);
        compress(&mut state, &words, (BLOCK_BYTES + 24) as u32, true);
        for lane in 0..N {
            masks.extend(state.iter().map(|word| word[lane]));
        }
    }

    /// XOR the bodies of N ids, all bytes but the format, with the streams of their MACs.
    #[inline(always)]
    pub fn seal<const N: usize>(&self, ids: &mut [u8]) {
        let mut streams = [[0; 2 * STREAM_BYTES]; N];
        for half in 0..2 {
            // The message is the MAC and the number of the half.
            let mut words = [[0; N]; 16];
            for (lane, id) in ids.chunks_exact(ID_BYTES).enumerate() {
                fill(&mut words, lane, &id[BODY_BYTES..]);
            }
            words[2] = [half as u32; N];
            let mut state = self.0.map(|word| [word; N]);
            compress(&mut state, &words, (BLOCK_BYTES + MAC_BYTES + 1) as u32, true);
            for (index, word) in state.iter().enumerate() {
                let at = half * STREAM_BYTES + 4 * index;
                for (stream, word) in streams.iter_mut().zip(word) {
                    stream[at..at + 4].copy_from_slice(&word.to_le_bytes());
                }
            }
        }
        for (id, stream) in ids.chunks_exact_mut(ID_BYTES).zip(&streams) {
            for (byte, mask) in id[1..BODY_BYTES].iter_mut().zip(stream) {
                *byte ^= mask;
            }
        }
    }
}

/// Put bytes into one lane of a block's words.
#[inline(always)]
fn fill<const N: usize>(words: &mut [Word<N>; 16], lane: usize, bytes: &[u8]) {
    for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        word[lane] = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    }
}

#[inline(always)]
fn wrapping_sum<const N: usize>(a: Word<N>, b: Word<N>) -> Word<N> {
    std::array::from_fn(|lane| a[lane].wrapping_add(b[lane]))
}

#[inline(always)]
fn xor_rotated<const N: usize>(a: Word<N>, b: Word<N>, bits: u32) -> Word<N> {
    std::array::from_fn(|lane| (a[lane] ^ b[lane]).rotate_right(bits))
}

/// RFC 7693, 3.1: the mixing function G.
#[inline(always)]
fn mix<const N: usize>(v: &mut [Word<N>; 16], at: [usize; 4], x: Word<N>, y: Word<N>) {
    let [a, b, c, d] = at;
    v[a] = wrapping_sum(wrapping_sum(v[a], v[b]), x);
    v[d] = xor_rotated(v[d], v[a], 16);
    v[c] = wrapping_sum(v[c], v[d]);
    v[b] = xor_rotated(v[b], v[c], 12);
    v[a] = wrapping_sum(wrapping_sum(v[a], v[b]), y);
    v[d] = xor_rotated(v[d], v[a], 8);
    v[c] = wrapping_sum(v[c], v[d]);
    v[b] = xor_rotated(v[b], v[c], 7);
}

/// RFC 7693, 3.2: the compression function F, on N states that have all seen `count` bytes.
#[inline(always)]
fn compress<const N: usize>(
    state: &mut [Word<N>; 8],
    words: &[Word<N>; 16],
    count: u32,
    last: bool,
) {
    let mut v = [[0; N]; 16];
    v[..8].copy_from_slice(state);
    for (index, word) in IV.iter().enumerate() {
        v[8 + index] = [*word; N];
    }
    v[12] = [IV[4] ^ count; N];
    if last {
        v[14] = [!IV[6]; N];
    }
    for order in &SIGMA {
        let word = |index: usize| words[order[index] & 15];
        mix(&mut v, [0, 4, 8, 12], word(0), word(1));
        mix(&mut v, [1, 5, 9, 13], word(2), word(3));
        mix(&mut v, [2, 6, 10, 14], word(4), word(5));
        mix(&mut v, [3, 7, 11, 15], word(6), word(7));
        mix(&mut v, [0, 5, 10, 15], word(8), word(9));
        mix(&mut v, [1, 6, 11, 12], word(10), word(11));
        mix(&mut v, [2, 7, 8, 13], word(12), word(13));
        mix(&mut v, [3, 4, 9, 14], word(14), word(15));
    }
    for (index, word) in state.iter_mut().enumerate() {
        *word = xor_rotated(*word, xor_rotated(v[index], v[index + 8], 0), 0);
    }
}
