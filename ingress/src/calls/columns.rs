//! Columns of numbers as bytes, little-endian, as Python and the journal have them.

use std::marker::PhantomData;
use std::ops::Range;

#[cfg(target_endian = "big")]
compile_error!("journals are little-endian; use the grpcio server on this machine");

/// A number that a column can hold.
pub trait Number: Copy + 'static {
    /// Its size in bytes.
    const BYTES: usize;

    /// Read the number from exactly that many bytes.
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Number for $kind {
            const BYTES: usize = size_of::<$kind>();

            fn from_bytes(bytes: &[u8]) -> $kind {
                let mut array = [0; size_of::<$kind>()];
                array.copy_from_slice(bytes);
                <$kind>::from_le_bytes(array)
            }
        }
    )*};
}

number!(u32, u64, i64, f32);

/// A column of numbers that is borrowed as bytes, which need not be aligned.
#[derive(Clone, Copy)]
pub struct Column<'a, T> {
    bytes: &'a [u8],
    kind: PhantomData<T>,
}

impl<'a, T: Number> Column<'a, T> {
    /// A column over `bytes`. An incomplete number at the end is ignored.
    pub fn new(bytes: &'a [u8]) -> Column<'a, T> {
        Column {
            bytes,
            kind: PhantomData,
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / T::BYTES
    }

    /// Whether there is no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at `index`.
    pub fn at(&self, index: usize) -> T {
        T::from_bytes(&self.bytes[index * T::BYTES..(index + 1) * T::BYTES])
    }

    /// The bytes of the numbers in `range`.
    pub fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        &self.bytes[range.start * T::BYTES..range.end * T::BYTES]
    }

    /// All numbers of the column, in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        self.bytes.chunks_exact(T::BYTES).map(T::from_bytes)
    }
}
