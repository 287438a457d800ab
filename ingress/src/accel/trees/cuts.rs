//! Float64 numbers that trees compare, as ranks among the thresholds of their input.
//!
//! A tree only asks on which side of a threshold a number is. So the number of thresholds below it says all,
//! and the layouts of float32 trees serve float64 trees as well. A rank is written as a float32: as many
//! floats above 1.0 as there are thresholds below the number.

use std::collections::BTreeMap;

use crate::accel::trees::{from_order_key, order_key};

/// The order key of rank 0.
const FIRST: i32 = 0x3f80_0000;
/// Most thresholds of an input: ranks stay below infinity.
const CUTS_MAX: usize = 1 << 23;

/// The thresholds of each input that is compared.
#[derive(Clone, Debug)]
pub struct Cuts {
    /// In ascending order, each once.
    by_feature: BTreeMap<u32, Vec<f64>>,
}

impl Cuts {
    /// The thresholds of (input, number, whether the float64 before the number is meant). None: an input
    /// is negative or has too many of them.
    pub fn new(compared: impl Iterator<Item = (i64, f64, bool)>) -> Option<Cuts> {
        let mut by_feature: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (feature, number, before) in compared {
            let feature = u32::try_from(feature).ok()?;
            let cuts = by_feature.entry(feature).or_default();
            cuts.extend(cut(number, before));
        }
        for cuts in by_feature.values_mut() {
            cuts.sort_by(f64::total_cmp);
            cuts.dedup();
        }
        by_feature.values().all(|cuts| cuts.len() < CUTS_MAX).then_some(Cuts {
            by_feature,
        })
    }

    /// The order key with which ranks are compared in place of a number of `new`.
    pub fn key(&self, feature: i64, number: f64, before: bool) -> Option<i32> {
        let cuts = self.by_feature.get(&u32::try_from(feature).ok()?)?;
        Some(match cut(number, before) {
            Some(cut) => FIRST + rank(cuts, cut) as i32,
            None => FIRST - 1,
        })
    }

    /// The lowest and the highest order key of a rank.
    pub fn bounds(&self, feature: u32) -> (i32, i32) {
        let Some(cuts) = self.by_feature.get(&feature) else {
            return (FIRST, FIRST);
        };
        // No number is above infinity.
        let infinite = cuts.last() == Some(&f64::INFINITY);
        (FIRST, FIRST + cuts.len() as i32 - i32::from(infinite))
    }

    /// The numbers with which an input is compared.
    pub fn thresholds(&self) -> impl Iterator<Item = (usize, &[f64])> {
        self.by_feature.iter().map(|(feature, cuts)| (*feature as usize, &cuts[..]))
    }

    /// The ranks of rows, (R, width) flat. NaN stays NaN. Inputs that are not compared become 0.
    pub fn ranks<T: Copy + Into<f64>>(&self, rows: &[T], width: usize) -> Vec<f32> {
        let mut ranks = vec![0.0; rows.len()];
        for (feature, cuts) in &self.by_feature {
            let feature = *feature as usize;
            for (ranks, row) in ranks.chunks_exact_mut(width).zip(rows.chunks_exact(width)) {
                let value: f64 = row[feature].into();
                ranks[feature] = if value.is_nan() {
                    f32::NAN
                } else {
                    from_order_key(FIRST + rank(cuts, value) as i32)
                };
            }
        }
        ranks
    }

    /// Rows of numbers that have these ranks: thresholds themselves, and the number after the last one.
    /// `usual` has the numbers of inputs that are not compared.
    pub fn rows_of(&self, ranks: &[f32], width: usize, usual: &[f64]) -> Vec<f64> {
        let mut rows: Vec<f64> = usual.iter().copied().cycle().take(ranks.len()).collect();
        for (feature, cuts) in &self.by_feature {
            let feature = *feature as usize;
            for (row, ranks) in rows.chunks_exact_mut(width).zip(ranks.chunks_exact(width)) {
                let at = order_key(ranks[feature], true).wrapping_sub(FIRST);
                row[feature] = match (ranks[feature].is_nan(), cuts.get(at as usize)) {
                    (true, _) => f64::NAN,
                    (false, Some(number)) => *number,
                    (false, None) => cuts.last().map_or(0.0, |last| after(*last)),
                };
            }
        }
        rows
    }
}

/// How many cuts are below a number.
#[inline(always)]
fn rank(cuts: &[f64], number: f64) -> usize {
    cuts.partition_point(|cut| *cut < number)
}

/// A number that is compared, or the float64 before it. None: nothing is before it.
fn cut(number: f64, before: bool) -> Option<f64> {
    match before {
        false => Some(number),
        true => (number != f64::NEG_INFINITY).then(|| -after(-number)),
    }
}

/// The next float64 above a number below infinity.
fn after(number: f64) -> f64 {
    let number = number + 0.0;
    let bits = number.to_bits();
    f64::from_bits(if number >= 0.0 { bits + 1 } else { bits - 1 }) + 0.0
}
