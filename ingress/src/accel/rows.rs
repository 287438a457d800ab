//! Rows of the online store: their keys from a batch's ids, and their values into its matrix.
//!
//! To the bit as features/rows.py packs and reads them; tests/gateway/test_native_rows.py holds both
//! against each other.

use xxhash_rust::xxh3::xxh3_64;

/// turnout.v1.RowFlag: there is no such row, or one too old to remember.
pub const MISSING: u32 = 1;
/// It is too old to use.
pub const STALE: u32 = 2;
/// A default stands in for some feature.
pub const DEFAULTED: u32 = 4;

const VIEW_AT: usize = 0;
const ID_AT: usize = 8;
const EVENT_AT: usize = 16;
const VALID_AT: usize = 24;
const WORD_BYTES: usize = 8;
const FORGET_AFTER_TTLS: i64 = 2;

/// How one view's rows lie in the store.
pub struct ViewRows {
    view: u64,
    ttl_ms: i64,
    key_suffix: Vec<u8>,
    all_valid: Vec<u8>,
    defaults: Vec<u8>,
}

/// What was read: R rows.
#[derive(Default)]
pub struct RowBatch {
    /// (R, F) float32.
    pub values: Vec<u8>,
    /// (R,) RowFlag bits.
    pub flags: Vec<u32>,
    /// Rows that are there, and not as this view's row of this id would be.
    pub broken: usize,
}

impl ViewRows {
    /// view: of its hash. tail: what follows an id in a key. all_valid: a row's validity words when
    /// nothing is defaulted. defaults: F float32, as bytes.
    ///
    /// None where words and defaults do not fit each other.
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

    /// Write an id's key into `key`.
    pub fn key(&self, id: &[u8], key: &mut Vec<u8>) {
        key.clear();
        key.push(b'{');
        key.extend_from_slice(id);
        key.extend_from_slice(&self.key_suffix);
    }

    /// Take in the next row: what the store said of `id`.
    pub fn read(&self, reply: Option<&[u8]>, id: &[u8], now_ms: i64, into: &mut RowBatch) {
        let Some(row) = reply else {
            return self.default(MISSING, into);
        };
        let values_at = VALID_AT + self.all_valid.len();
        let present = row.len() == values_at + self.defaults.len()
            && word(row, VIEW_AT) == self.view
            && word(row, ID_AT) == xxh3_64(id);
        if !present {
            into.broken += 1;
            return self.default(MISSING, into);
        }
        let age_ms = now_ms.wrapping_sub(word(row, EVENT_AT) as i64);
        if age_ms > self.ttl_ms.saturating_mul(FORGET_AFTER_TTLS) {
            self.default(MISSING, into);
        } else if age_ms > self.ttl_ms {
            self.default(STALE, into);
        } else {
            let whole = row[VALID_AT..values_at] == self.all_valid[..];
            into.values.extend_from_slice(&row[values_at..]);
            into.flags.push(if whole { 0 } else { DEFAULTED });
        }
    }

    fn default(&self, flag: u32, into: &mut RowBatch) {
        into.values.extend_from_slice(&self.defaults);
        into.flags.push(flag | DEFAULTED);
    }

    /// Bytes of a row's values.
    pub fn values_bytes(&self) -> usize {
        self.defaults.len()
    }
}

/// A little-endian word of a row that is long enough.
fn word(row: &[u8], at: usize) -> u64 {
    row[at..at + WORD_BYTES].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
