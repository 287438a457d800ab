//! The words in which trees keep the leaves that a row can still come to.

use std::ops::BitAndAssign;

/// A word with one bit for each leaf of a tree.
pub trait Word: BitAndAssign + Copy {
    /// The values of a tree's leaves, one for each bit.
    type Leaves: Copy;
    /// The word with every bit set.
    const ALL: Self;

    /// The first bits of `mask`.
    fn from_mask(mask: u64) -> Self;

    /// The mask of a node for a row that goes to the right, and `ALL` for any other.
    fn where_right(self, goes_right: bool) -> Self;

    /// The bits that are not set.
    fn cleared(self) -> u64;

    /// The value of the leaf whose bit is the lowest that is set.
    fn lowest_of(self, leaves: &Self::Leaves) -> f32;

    /// The leaf values in the form of this word; there are at most as many as it has bits.
    fn leaves(values: &[f32]) -> Self::Leaves;
}

macro_rules! word {
    ($word:ty) => {
        impl Word for $word {
            type Leaves = [f32; <$word>::BITS as usize];
            const ALL: $word = <$word>::MAX;

            #[inline(always)]
            fn from_mask(mask: u64) -> $word {
                mask as $word
            }

            #[inline(always)]
            fn where_right(self, goes_right: bool) -> $word {
                <$word>::from(goes_right).wrapping_sub(1) | self
            }

            fn cleared(self) -> u64 {
                u64::from(!self)
            }

            #[inline(always)]
            fn lowest_of(self, leaves: &Self::Leaves) -> f32 {
                leaves[self.trailing_zeros() as usize & (<$word>::BITS as usize - 1)]
            }

            fn leaves(values: &[f32]) -> Self::Leaves {
                let mut leaves = [0.0; <$word>::BITS as usize];
                leaves.iter_mut().zip(values).for_each(|(leaf, value)| *leaf = *value);
                leaves
            }
        }
    };
}

word!(u32);
word!(u64);
