//! Rows of the online feature store: makes their keys from entity ids, and reads their values.
//!
//! The bytes are those of features/rows.py. tests/gateway/models/test_native_rows.py compares both.

use xxhash_rust::xxh3::xxh3_64;

use crate::accel::store_keys::StoreKeys;

/// turnout.v1.RowFlag: the store has no such row, or it is older than two TTLs.
pub const MISSING: u32 = 1;
/// turnout.v1.RowFlag: the row is older than its TTL.
pub const STALE: u32 = 2;
/// turnout.v1.RowFlag: at least one feature has its default value.
pub const DEFAULTED: u32 = 4;

/// turnout.v1.RowFlag: the store did not answer in time.
pub const DEGRADED: u32 = 8;

/// Offsets in a stored row. Words of validity bits and the values follow.
const VIEW_AT: usize = 0;
const ID_AT: usize = 8;
const EVENT_AT: usize = 16;
const VALID_AT: usize = 24;
const WORD_BYTES: usize = 8;
/// A row that is older than so many TTLs counts as missing.
const FORGET_AFTER_TTLS: i64 = 2;
/// A row that is dated further in the future than this counts as broken.
const CLOCK_SKEW_MS_MAX: i64 = 3_600_000;

/// How the rows of one view are stored.
pub struct ViewRows {
    view: u64,
    ttl_ms: i64,
    key_suffix: Vec<u8>,
    all_valid: Vec<u8>,
    defaults: Vec<u8>,
}

/// The R rows that were read for a batch.
#[derive(Default)]
pub struct RowBatch {
    /// (R, F) float32, as bytes.
    pub values: Vec<u8>,
    /// (R,) turnout.v1.RowFlag bits.
    pub flags: Vec<u32>,
    /// Stored rows with a wrong length, view hash or id hash, or an event in the future. They count as
    /// missing.
    pub broken: usize,
}

impl ViewRows {
    /// A view by its hash. `key_suffix` follows the id in a key. `all_valid` are a row's validity words
    /// if no feature is defaulted. `defaults` are F float32, as bytes.
    ///
    /// None if the numbers of words and defaults do not fit each other.
    pub fn new(
        view: u64,
        ttl_ms: i64,
        key_suffix: &[u8],
        all_valid: &[u8],
        defaults: &[u8],
    ) -> Option<ViewRows> {
        let width = defaults.len() / 4;
        let fits = defaults.len() % 4 == 0 && all_valid.len() == width.div_ceil(64) * WORD_BYTES;
        fits.then(|| ViewRows {
            view,
            ttl_ms,
            key_suffix: key_suffix.to_vec(),
            all_valid: all_valid.to_vec(),
            defaults: defaults.to_vec(),
        })
    }

    /// Append the key of an id.
    pub fn put_key(&self, id: &[u8], keys: &mut StoreKeys) {
        keys.push_parts(&[b"{", id, &self.key_suffix]);
    }

    /// Append the row of `id` to `rows`. `reply` is what the store returned for its key.
    pub fn read(&self, reply: Option<&[u8]>, id: &[u8], now_ms: i64, rows: &mut RowBatch) {
        let Some(row) = reply else {
            return self.push_default(MISSING, rows);
        };
        let values_at = VALID_AT + self.all_valid.len();
        let intact = row.len() == values_at + self.defaults.len()
            && word(row, VIEW_AT) == self.view
            && word(row, ID_AT) == xxh3_64(id);
        let age_ms = if intact { now_ms.wrapping_sub(word(row, EVENT_AT) as i64) } else { 0 };
        if !intact || age_ms < -CLOCK_SKEW_MS_MAX {
            rows.broken += 1;
            return self.push_default(MISSING, rows);
        }
        // An old row is not used.
        if age_ms > self.ttl_ms.saturating_mul(FORGET_AFTER_TTLS) {
            self.push_default(MISSING, rows);
        } else if age_ms > self.ttl_ms {
            self.push_default(STALE, rows);
        } else {
            let all_valid = row[VALID_AT..values_at] == self.all_valid[..];
            rows.values.extend_from_slice(&row[values_at..]);
            rows.flags.push(if all_valid { 0 } else { DEFAULTED });
        }
    }

    fn push_default(&self, flag: u32, rows: &mut RowBatch) {
        rows.values.extend_from_slice(&self.defaults);
        rows.flags.push(flag | DEFAULTED);
    }

    /// Bytes of the values of one row.
    pub fn values_bytes(&self) -> usize {
        self.defaults.len()
    }
}

/// The little-endian word at an offset. The row has to be long enough.
fn word(row: &[u8], at: usize) -> u64 {
    row[at..at + WORD_BYTES].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
