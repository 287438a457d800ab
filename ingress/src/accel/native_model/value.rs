//! Values that steps compute: matrices of numbers, a row of them for each row of a block.

use std::borrow::Cow;

use crate::accel::native_model::real::Real;

/// The types of ONNX that steps know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// float32 numbers.
    Single,
    /// float64 numbers.
    Double,
    /// bool, as 0 and 1 in float32.
    Truth,
    /// int64, as whole numbers in float64.
    Integer,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub kind: Type,
    /// The number of columns.
    pub width: usize,
    /// It has one row, which counts for every row of a block.
    pub constant: bool,
}

/// The numbers of a value, row after row.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Single(Cow<'a, [f32]>),
    Double(Cow<'a, [f64]>),
}

impl Value<'_> {
    /// A view of the numbers.
    pub fn borrowed(&self) -> Value<'_> {
        match self {
            Value::Single(numbers) => Value::Single(Cow::Borrowed(numbers)),
            Value::Double(numbers) => Value::Double(Cow::Borrowed(numbers)),
        }
    }
}

impl From<Vec<f32>> for Value<'_> {
    fn from(numbers: Vec<f32>) -> Self {
        Value::Single(Cow::Owned(numbers))
    }
}

impl From<Vec<f64>> for Value<'_> {
    fn from(numbers: Vec<f64>) -> Self {
        Value::Double(Cow::Owned(numbers))
    }
}

/// The numbers of a value and their shape.
#[derive(Clone, Copy)]
pub struct Columns<'a, T> {
    pub numbers: &'a [T],
    pub width: usize,
    pub constant: bool,
}

impl<'a, T: Copy> Columns<'a, T> {
    /// A row of a block.
    #[inline(always)]
    pub fn row(&self, at: usize) -> &'a [T] {
        let first = if self.constant { 0 } else { at * self.width };
        &self.numbers[first..][..self.width]
    }

    /// The value of a column of `row`. A single column counts for all.
    #[inline(always)]
    fn of(&self, row: &[T], column: usize) -> T {
        row[if self.width == 1 { 0 } else { column }]
    }
}

/// Combine each number of two values. The widths are equal, or one of them is 1.
#[inline(always)]
pub fn combine<T: Copy, O>(
    rows: usize,
    left: Columns<'_, T>,
    right: Columns<'_, T>,
    of: impl Fn(T, T) -> O,
) -> Vec<O> {
    let mut combined = Vec::with_capacity(rows * left.width.max(right.width));
    if left.width == right.width && !left.constant && !right.constant {
        let pairs = left.numbers.iter().zip(right.numbers);
        combined.extend(pairs.map(|(left, right)| of(*left, *right)));
        return combined;
    }
    for row in 0..rows {
        let (left, right) = (left.row(row), right.row(row));
        match (left, right) {
            ([left], _) => combined.extend(right.iter().map(|right| of(*left, *right))),
            (_, [right]) => combined.extend(left.iter().map(|left| of(*left, *right))),
            _ => combined.extend(left.iter().zip(right).map(|(left, right)| of(*left, *right))),
        }
    }
    combined
}

/// Take each number of `yes` where `test` is not 0, and of `no` elsewhere. All widths are `width` or 1.
#[inline(always)]
pub fn choose<T: Real>(
    rows: usize,
    width: usize,
    test: Columns<'_, f32>,
    yes: Columns<'_, T>,
    no: Columns<'_, T>,
) -> Vec<T> {
    let mut chosen = Vec::with_capacity(rows * width);
    for row in 0..rows {
        let (tests, yes_row, no_row) = (test.row(row), yes.row(row), no.row(row));
        let choice = |column: usize| {
            let (yes, no) = (yes.of(yes_row, column), no.of(no_row, column));
            // ONNX Runtime adds both, of which the other is 0; so it makes 0.0 of -0.0.
            (if test.of(tests, column) != 0.0 { yes } else { no }) + T::ZERO
        };
        chosen.extend((0..width).map(choice));
    }
    chosen
}

/// Numbers as a value of this type has them.
pub fn stored(numbers: Vec<f64>, kind: Type) -> Value<'static> {
    match kind {
        Type::Single | Type::Truth => {
            numbers.iter().map(|number| *number as f32).collect::<Vec<_>>().into()
        }
        Type::Double | Type::Integer => numbers.into(),
    }
}
