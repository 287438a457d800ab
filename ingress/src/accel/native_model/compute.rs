//! What the actions of steps compute. All is inlined into code that is compiled for wide vectors.

use std::borrow::Cow;

use crate::accel::native_model::operation::{Arithmetic, Comparison, Function, Norm, Place};
use crate::accel::native_model::real::{is_nan, Real};
use crate::accel::native_model::step::Action;
use crate::accel::native_model::value::{combine, Columns, Type, Value};

/// Compute each number anew. A closure need not be inlined, and then it is not compiled for wide vectors.
macro_rules! each {
    ($numbers:expr, $value:ident => $new:expr) => {
        for number in $numbers.iter_mut() {
            let $value = *number;
            *number = $new;
        }
    };
}

/// Actions whose value is of the type of what they read.
#[inline(always)]
pub fn floats<T: Real>(
    action: &Action,
    rows: usize,
    source: Columns<'_, T>,
    right: Option<Columns<'_, T>>,
    number: impl Fn(f64) -> T,
) -> Vec<T> {
    let by_row = |of: &dyn Fn(&[T]) -> T| -> Vec<T> {
        source.numbers.chunks_exact(source.width).map(of).collect()
    };
    match action {
        Action::Function(function) => {
            let mut numbers = source.numbers.to_vec();
            apply(*function, &mut numbers);
            numbers
        }
        Action::LeakyRelu(slope) => {
            let (slope, mut numbers) = (number(*slope), source.numbers.to_vec());
            each!(numbers, value => if value >= T::ZERO { value } else { slope * value });
            numbers
        }
        Action::Arithmetic(operation) => {
            arithmetic_of(*operation, rows, source, right.unwrap_or(source))
        }
        Action::Softmax => {
            let mut numbers = source.numbers.to_vec();
            for row in numbers.chunks_exact_mut(source.width) {
                softmax(row);
            }
            numbers
        }
        Action::Norm(Norm::Sum) => by_row(&|row| sum(row.iter().copied())),
        Action::Norm(Norm::L1) => by_row(&|row| sum(row.iter().map(|value| value.abs()))),
        Action::Norm(Norm::Max) => by_row(&|row| row.iter().fold(row[0], |most, v| v.higher(most))),
        Action::Norm(Norm::Min) => {
            by_row(&|row| row.iter().fold(row[0], |least, v| v.lower(least)))
        }
        Action::Norm(Norm::Product) => {
            by_row(&|row| row.iter().fold(T::ONE, |product, value| product * *value))
        }
        Action::Columns(columns) => {
            let mut picked = Vec::with_capacity(rows * columns.len());
            for row in source.numbers.chunks_exact(source.width) {
                picked.extend(columns.iter().map(|column| row[*column]));
            }
            picked
        }
        Action::Impute(missing, filled) => {
            let (all_nan, missing) = (missing.is_nan(), number(*missing));
            let filled: Vec<T> = filled.iter().map(|value| number(*value)).collect();
            let mut numbers = source.numbers.to_vec();
            for row in numbers.chunks_exact_mut(source.width) {
                for (value, filled) in row.iter_mut().zip(&filled) {
                    if *value == missing || (all_nan && is_nan(*value)) {
                        *value = *filled;
                    }
                }
            }
            numbers
        }
        // The others are computed above.
        _ => Vec::new(),
    }
}

/// 1 or -1 with the sign of a number; 0 of zeros, and NaN of NaN.
#[inline(always)]
fn sign<T: Real>(value: T) -> T {
    if value > T::ZERO {
        T::ONE
    } else if value < T::ZERO {
        -T::ONE
    } else {
        value + T::ZERO
    }
}

/// The index of a column in each row, as int64.
#[inline(always)]
pub fn places<T: Real>(place: Place, source: Columns<'_, T>) -> Vec<f64> {
    let of = |row: &[T]| {
        let mut best = 0;
        for (at, value) in row.iter().enumerate() {
            let better = match place {
                Place::Highest => *value > row[best],
                Place::Lowest => *value < row[best],
            };
            best = if better { at } else { best };
        }
        best as f64
    };
    source.numbers.chunks_exact(source.width).map(of).collect()
}

/// Apply a function to each number.
#[inline(always)]
fn apply<T: Real>(function: Function, numbers: &mut [T]) {
    match function {
        Function::Neg => each!(numbers, value => -value),
        Function::Abs => each!(numbers, value => value.abs()),
        Function::Sqrt => each!(numbers, value => value.sqrt()),
        Function::Log => each!(numbers, value => value.ln()),
        Function::Exp => each!(numbers, value => value.exp()),
        Function::Floor => each!(numbers, value => value.floor()),
        Function::Ceil => each!(numbers, value => value.ceil()),
        Function::Round => each!(numbers, value => value.round()),
        Function::Sign => each!(numbers, value => sign(value)),
        Function::Relu => each!(numbers, value => value.higher(T::ZERO)),
        Function::Sigmoid => each!(numbers, value => value.sigmoid()),
        Function::Tanh => each!(numbers, value => value.tanh()),
        Function::Not | Function::IsNaN => each!(numbers, value => T::ONE - value),
    }
}

#[inline(always)]
fn arithmetic_of<T: Real>(
    operation: Arithmetic,
    rows: usize,
    left: Columns<'_, T>,
    right: Columns<'_, T>,
) -> Vec<T> {
    match operation {
        Arithmetic::Add => combine(rows, left, right, |left, right| left + right),
        Arithmetic::Sub => combine(rows, left, right, |left, right| left - right),
        Arithmetic::Mul => combine(rows, left, right, |left, right| left * right),
        Arithmetic::Div => combine(rows, left, right, |left, right| left / right),
        Arithmetic::Min => combine(rows, left, right, T::lower),
        Arithmetic::Max => combine(rows, left, right, T::higher),
        Arithmetic::Pow => combine(rows, left, right, T::pow),
    }
}

#[inline(always)]
pub fn compare<T: Real>(
    comparison: Comparison,
    rows: usize,
    left: Columns<'_, T>,
    right: Columns<'_, T>,
) -> Vec<f32> {
    let truth = |is: bool| f32::from(u8::from(is));
    match comparison {
        Comparison::Less => combine(rows, left, right, |left, right| truth(left < right)),
        Comparison::LessOrEqual => combine(rows, left, right, |left, right| truth(left <= right)),
        Comparison::Greater => combine(rows, left, right, |left, right| truth(left > right)),
        Comparison::GreaterOrEqual => {
            combine(rows, left, right, |left, right| truth(left >= right))
        }
        Comparison::Equal => combine(rows, left, right, |left, right| truth(left == right)),
    }
}

#[inline(always)]
pub fn nans<T: Real>(source: Columns<'_, T>) -> Vec<f32> {
    source.numbers.iter().map(|value| f32::from(u8::from(is_nan(*value)))).collect()
}

#[inline(always)]
fn sum<T: Real>(numbers: impl Iterator<Item = T>) -> T {
    numbers.fold(T::ZERO, |sum, value| sum + value)
}

#[inline(always)]
fn softmax<T: Real>(numbers: &mut [T]) {
    let highest = numbers.iter().fold(numbers[0], |most, value| value.higher(most));
    each!(numbers, value => (value - highest).exp());
    let sum = sum(numbers.iter().copied());
    each!(numbers, value => value / sum);
}

pub fn one_hot(categories: &[f64], numbers: impl Iterator<Item = f64>) -> Vec<f32> {
    let mut all = Vec::with_capacity(numbers.size_hint().0 * categories.len());
    for value in numbers {
        all.extend(categories.iter().map(|category| f32::from(u8::from(value == *category))));
    }
    all
}

pub fn concat<T: Copy>(rows: usize, sources: &[Columns<'_, T>]) -> Vec<T> {
    let mut all =
        Vec::with_capacity(rows * sources.iter().map(|source| source.width).sum::<usize>());
    for row in 0..rows {
        sources.iter().for_each(|source| all.extend_from_slice(source.row(row)));
    }
    all
}

/// Convert numbers as ONNX Runtime does. To int64 it truncates, and what is out of range becomes the
/// lowest number.
#[inline(always)]
pub fn cast(value: &Value<'_>, from: Type, to: Type) -> Value<'static> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    let whole = |number: f64| {
        let cut = number.trunc() + 0.0;
        if (-BEYOND..BEYOND).contains(&cut) {
            cut
        } else {
            -BEYOND
        }
    };
    let truth = |is: bool| f32::from(u8::from(is));
    match (value, to) {
        (Value::Single(numbers), Type::Truth) if from != Type::Truth => {
            numbers.iter().map(|number| truth(*number != 0.0)).collect::<Vec<_>>().into()
        }
        (Value::Single(numbers), Type::Single | Type::Truth) => {
            Value::Single(Cow::Owned(numbers.to_vec()))
        }
        (Value::Single(numbers), Type::Double) => {
            numbers.iter().map(|number| f64::from(*number)).collect::<Vec<_>>().into()
        }
        (Value::Single(numbers), Type::Integer) => {
            numbers.iter().map(|number| whole(f64::from(*number))).collect::<Vec<_>>().into()
        }
        (Value::Double(numbers), Type::Truth) => {
            numbers.iter().map(|number| truth(*number != 0.0)).collect::<Vec<_>>().into()
        }
        (Value::Double(numbers), Type::Single) => {
            numbers.iter().map(|number| *number as f32).collect::<Vec<_>>().into()
        }
        (Value::Double(numbers), Type::Double) => Value::Double(Cow::Owned(numbers.to_vec())),
        (Value::Double(numbers), Type::Integer) => {
            numbers.iter().map(|number| whole(*number)).collect::<Vec<_>>().into()
        }
    }
}
