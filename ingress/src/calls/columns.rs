//! Columns as bytes: numbers one behind the other, as Python and journals have them.

use std::marker::PhantomData;
use std::ops::Range;

#[cfg(target_endian = "big")]
compile_error!("journals are little-endian; the portable front door serves here");

/// A number in a column.
pub trait Number: Copy + 'static {
    /// Bytes of one.
    const BYTES: usize;

    /// It, from its bytes.
    fn of(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Number for $kind {
            const BYTES: usize = size_of::<$kind>();

            fn of(bytes: &[u8]) -> $kind {
                let mut own = [0; size_of::<$kind>()];
                own.copy_from_slice(bytes);
                <$kind>::from_le_bytes(own)
            }
        }
    )*};
}

number!(u32, u64, i64, f32);

/// N numbers.
#[derive(Clone, Copy)]
pub struct Column<'a, T> {
    bytes: &'a [u8],
    kind: PhantomData<T>,
}

impl<'a, T: Number> Column<'a, T> {
    /// Bytes that are left over are not seen.
    pub fn new(bytes: &'a [u8]) -> Column<'a, T> {
        Column {
            bytes,
            kind: PhantomData,
        }
    }

    /// N.
    pub fn len(&self) -> usize {
        self.bytes.len() / T::BYTES
    }

    /// Whether N is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    pub fn at(&self, place: usize) -> T {
        T::of(&self.bytes[place * T::BYTES..(place + 1) * T::BYTES])
    }

    /// Some of them, as they lie.
    pub fn bytes(&self, input_indexes: Range<usize>) -> &'a [u8] {
        &self.bytes[input_indexes.start * T::BYTES..input_indexes.end * T::BYTES]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        self.bytes.chunks_exact(T::BYTES).map(T::of)
    }
}
