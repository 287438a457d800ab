//! Runs one step for a block of rows.

use crate::accel::native_model::compute::{cast, compare, concat, floats, nans, one_hot, places};
use crate::accel::native_model::operation::Function;
use crate::accel::native_model::step::{Action, Step};
use crate::accel::native_model::value::{choose, Columns, Shape, Type, Value};
use crate::sys::vectors::Vectorized;

/// A step that computes its value for a block of rows.
pub struct Run<'s, 'v> {
    pub step: &'s Step,
    pub values: &'v [Value<'s>],
    pub rows: usize,
    /// Products use the vectors that every processor has.
    pub portable: bool,
}

impl<'v> Run<'_, 'v> {
    #[inline(always)]
    fn source(&self, at: usize) -> (&'v Value<'v>, Shape) {
        (&self.values[self.step.sources[at]], self.step.read[at])
    }

    /// A source that `Step::build` found to be float32 or bool.
    #[inline(always)]
    fn single(&self, at: usize) -> Columns<'v, f32> {
        let (value, shape) = self.source(at);
        let numbers: &[f32] = match value {
            Value::Single(numbers) => numbers,
            Value::Double(_) => &[],
        };
        Columns {
            numbers,
            width: shape.width,
            constant: shape.constant,
        }
    }

    /// A source that `Step::build` found to be float64 or int64.
    #[inline(always)]
    fn double(&self, at: usize) -> Columns<'v, f64> {
        let (value, shape) = self.source(at);
        let numbers: &[f64] = match value {
            Value::Double(numbers) => numbers,
            Value::Single(_) => &[],
        };
        Columns {
            numbers,
            width: shape.width,
            constant: shape.constant,
        }
    }

    /// Whether source `at` has float32 numbers.
    #[inline(always)]
    fn is_single(&self, at: usize) -> bool {
        matches!(self.step.read[at].kind, Type::Single | Type::Truth)
    }
}

impl<'s> Vectorized for Run<'s, '_> {
    type Output = Value<'s>;
    const FOR_AVX512: bool = true;

    fn run_portable(self) -> Value<'s> {
        self.run_avx2()
    }

    #[inline(always)]
    fn run_avx2(self) -> Value<'s> {
        // A constant is computed from constants, for one row.
        let constant = !self.step.read.is_empty() && self.step.read.iter().all(|of| of.constant);
        let rows = if constant { 1 } else { self.rows };
        match &self.step.action {
            Action::Constant(value) => value.borrowed(),
            Action::Cast(to) => cast(self.source(0).0, self.step.read[0].kind, *to),
            Action::Comparison(comparison) if self.is_single(0) => {
                compare(*comparison, rows, self.single(0), self.single(1)).into()
            }
            Action::Comparison(comparison) => {
                compare(*comparison, rows, self.double(0), self.double(1)).into()
            }
            Action::Function(Function::IsNaN) if self.is_single(0) => nans(self.single(0)).into(),
            Action::Function(Function::IsNaN) => nans(self.double(0)).into(),
            Action::Where => {
                let (test, width) = (self.single(0), self.step.width);
                if self.is_single(1) {
                    choose(rows, width, test, self.single(1), self.single(2)).into()
                } else {
                    choose(rows, width, test, self.double(1), self.double(2)).into()
                }
            }
            Action::Single(dense) => dense.score(self.single(0).numbers, self.portable).into(),
            Action::Double(dense) => dense.score(self.double(0).numbers, self.portable).into(),
            Action::OneHot(categories) => match self.source(0).0 {
                Value::Single(numbers) => {
                    one_hot(categories, numbers.iter().map(|v| f64::from(*v)))
                }
                Value::Double(numbers) => one_hot(categories, numbers.iter().copied()),
            }
            .into(),
            Action::Place(place) if self.is_single(0) => places(*place, self.single(0)).into(),
            Action::Place(place) => places(*place, self.double(0)).into(),
            Action::LookUp(table) => table.run(self.source(0).0),
            Action::Trees(trees) if self.is_single(0) => trees.score(self.single(0).numbers).into(),
            Action::Trees(trees) => trees.score_double(self.double(0).numbers).into(),
            Action::Concat => {
                let sources = 0..self.step.sources.len();
                if self.is_single(0) {
                    concat(rows, &sources.map(|at| self.single(at)).collect::<Vec<_>>()).into()
                } else {
                    concat(rows, &sources.map(|at| self.double(at)).collect::<Vec<_>>()).into()
                }
            }
            other if self.is_single(0) => {
                let right = (self.step.sources.len() > 1).then(|| self.single(1));
                floats(other, rows, self.single(0), right, |number| number as f32).into()
            }
            other => {
                let right = (self.step.sources.len() > 1).then(|| self.double(1));
                floats(other, rows, self.double(0), right, |number| number).into()
            }
        }
    }
}
