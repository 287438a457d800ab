//! The steps of a native model. Each computes a value from those of the steps before it, as the
//! operators of ONNX do.

use std::borrow::Cow;
use std::sync::Arc;

use crate::accel::native_model::dense::Dense;
use crate::accel::native_model::real::{is_nan, Real};
use crate::accel::native_model::value::{choose, combine, Columns, Shape, Type, Value};
use crate::accel::trees::Trees;
use crate::sys::vectors::Vectorized;

/// A step as it is described. `build` checks it.
pub struct Description {
    pub kind: String,
    /// The values that it reads: 0 is the model's inputs, and n is what step n - 1 computed.
    pub sources: Vec<usize>,
    pub integers: Vec<usize>,
    pub numbers: Vec<f64>,
    pub trees: Option<Arc<Trees>>,
}

/// A step that fits the values it reads.
#[derive(Clone, Debug)]
pub struct Step {
    action: Action,
    sources: Vec<usize>,
    /// The shapes of the values that it reads.
    read: Vec<Shape>,
    width: usize,
}

#[derive(Clone, Debug)]
enum Action {
    Constant(Value<'static>),
    Cast(Type),
    Function(Function),
    LeakyRelu(f64),
    Arithmetic(Arithmetic),
    Comparison(Comparison),
    Where,
    Single(Dense<f32>),
    Double(Dense<f64>),
    Softmax,
    Norm(Norm),
    Columns(Vec<usize>),
    Concat,
    Impute(f64, Vec<f64>),
    OneHot(Vec<f64>),
    LookUp(Table),
    Trees(Arc<Trees>),
}

/// Functions of each number alone.
#[derive(Clone, Copy, Debug)]
enum Function {
    Neg,
    Abs,
    Sqrt,
    Log,
    Exp,
    Floor,
    Relu,
    Sigmoid,
    Tanh,
    IsNaN,
    Not,
}

#[derive(Clone, Copy, Debug)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Pow,
}

/// A value for each of some numbers.
#[derive(Clone, Debug)]
struct Table {
    to: Type,
    /// The value of all other numbers.
    default: f64,
    /// In ascending order, none of them NaN.
    entries: Vec<(f64, f64)>,
}

impl Table {
    /// `numbers` are the default, the keys and as many values. None: they are not so many, or a key is
    /// NaN or occurs twice.
    fn new(to: Type, numbers: &[f64]) -> Option<Table> {
        let (default, rest) = numbers.split_first()?;
        let (keys, values) = rest.split_at(rest.len() / 2);
        let mut entries: Vec<(f64, f64)> =
            keys.iter().copied().zip(values.iter().copied()).collect();
        entries.sort_by(|one, other| one.0.total_cmp(&other.0));
        let ascending = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let fits = keys.len() == values.len() && !keys.iter().any(|key| key.is_nan()) && ascending;
        fits.then_some(Table {
            to,
            default: *default,
            entries,
        })
    }

    fn of(&self, number: f64) -> f64 {
        let at = self.entries.partition_point(|entry| entry.0 < number);
        match self.entries.get(at) {
            Some((key, value)) if *key == number => *value,
            _ => self.default,
        }
    }

    fn run(&self, value: &Value<'_>) -> Value<'static> {
        let found: Vec<f64> = match value {
            Value::Single(numbers) => numbers.iter().map(|v| self.of(f64::from(*v))).collect(),
            Value::Double(numbers) => numbers.iter().map(|v| self.of(*v)).collect(),
        };
        stored(found, self.to)
    }
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

/// What is computed of a row as a whole.
#[derive(Clone, Copy, Debug)]
enum Norm {
    /// The sum.
    Sum,
    /// The sum of absolute values.
    L1,
    /// The highest number.
    Max,
}

impl Step {
    /// Check a description by the shapes of all values before it. Returns the step and its value's
    /// shape. The error says what does not fit.
    pub fn build(described: Description, shapes: &[Shape]) -> Result<(Step, Shape), String> {
        let Description {
            kind,
            sources,
            integers,
            numbers,
            trees,
        } = described;
        let wrong = |what: &str| Err(format!("step {}, {kind}: {what}", shapes.len()));
        // Look up what the step reads.
        let read: Option<Vec<Shape>> =
            sources.iter().map(|source| shapes.get(*source).copied()).collect();
        let Some(read) = read else {
            return wrong("it reads a later value");
        };
        let first = read.first().copied();
        let float = |shape: &Shape| matches!(shape.kind, Type::Single | Type::Double);
        let same = read.windows(2).all(|pair| pair[0].kind == pair[1].kind);
        let width = read.iter().map(|shape| shape.width).max().unwrap_or_default();
        let broadcast = read.iter().all(|shape| shape.width == width || shape.width == 1);
        let constant = !read.is_empty() && read.iter().all(|shape| shape.constant);
        let shape = |kind: Type, width: usize| Shape {
            kind,
            width,
            constant,
        };
        // Find the action and the shape of its value, if what it reads fits.
        let built = match (kind.as_str(), first, read.len()) {
            ("constant", None, 0) => match integers.first().copied().and_then(type_of) {
                Some(kind) if !numbers.is_empty() => {
                    let shape = Shape {
                        kind,
                        width: numbers.len(),
                        constant: true,
                    };
                    Some((Action::Constant(stored(numbers, kind)), shape))
                }
                _ => None,
            },
            ("cast", Some(of), 1) => integers
                .first()
                .copied()
                .and_then(type_of)
                .map(|to| (Action::Cast(to), shape(to, of.width))),
            ("leaky_relu", Some(of), 1) if float(&of) && numbers.len() == 1 => {
                Some((Action::LeakyRelu(numbers[0]), shape(of.kind, of.width)))
            }
            ("where", Some(test), 3) if test.kind == Type::Truth && broadcast => {
                let both = read[1].kind == read[2].kind;
                both.then(|| (Action::Where, shape(read[1].kind, width)))
            }
            ("dense", Some(of), 1) if float(&of) => dense(of, &integers, &numbers)
                .map(|(action, outputs)| (action, shape(of.kind, outputs))),
            ("softmax", Some(of), 1) if float(&of) => {
                Some((Action::Softmax, shape(of.kind, of.width)))
            }
            ("columns", Some(of), 1) => {
                let fits = !integers.is_empty() && integers.iter().all(|at| *at < of.width);
                let picked = shape(of.kind, integers.len());
                fits.then_some((Action::Columns(integers), picked))
            }
            ("concat", Some(of), _) if same && read.iter().all(|shape| !shape.constant) => {
                let width = read.iter().map(|shape| shape.width).sum();
                Some((Action::Concat, shape(of.kind, width)))
            }
            ("impute", Some(of), 1) if float(&of) && numbers.len() == of.width + 1 => {
                let filled = numbers[1..].to_vec();
                Some((Action::Impute(numbers[0], filled), shape(of.kind, of.width)))
            }
            ("one_hot", Some(of), 1) if of.width == 1 && !numbers.is_empty() => {
                let width = numbers.len();
                Some((Action::OneHot(numbers), shape(Type::Single, width)))
            }
            ("look_up", Some(of), 1) => integers
                .first()
                .copied()
                .and_then(type_of)
                .and_then(|to| Table::new(to, &numbers))
                .map(|table| {
                    let to = table.to;
                    (Action::LookUp(table), shape(to, of.width))
                }),
            ("trees", Some(of), 1) => trees
                .filter(|trees| of.kind == Type::Single && trees.width() == of.width && !constant)
                .map(|trees| {
                    let outputs = trees.outputs().count();
                    (Action::Trees(trees), shape(Type::Single, outputs))
                }),
            (name, Some(of), 1) if float(&of) && norm(name).is_some() => {
                norm(name).map(|norm| (Action::Norm(norm), shape(of.kind, 1)))
            }
            ("not", Some(of), 1) if of.kind == Type::Truth => {
                Some((Action::Function(Function::Not), shape(of.kind, of.width)))
            }
            ("is_nan", Some(of), 1) if float(&of) => {
                Some((Action::Function(Function::IsNaN), shape(Type::Truth, of.width)))
            }
            (name, Some(of), 1) if float(&of) => function(name)
                .map(|function| (Action::Function(function), shape(of.kind, of.width))),
            (name, Some(of), 2) if same && broadcast => match arithmetic(name, of.kind) {
                Some(operation) => Some((Action::Arithmetic(operation), shape(of.kind, width))),
                None => comparison(name)
                    .map(|operation| (Action::Comparison(operation), shape(Type::Truth, width))),
            },
            _ => None,
        };
        let Some((action, shape)) = built else {
            return wrong("it is not known for such values");
        };
        let step = Step {
            action,
            sources,
            read,
            width: shape.width,
        };
        Ok((step, shape))
    }

    /// Whether it gives the same bits as ONNX Runtime's operator wherever both compute the same.
    pub fn is_exact(&self) -> bool {
        use Function::{Exp, Log, Sigmoid, Tanh};
        !matches!(
            self.action,
            Action::Single(_)
                | Action::Double(_)
                | Action::Softmax
                | Action::Norm(_)
                | Action::Function(Log | Exp | Sigmoid | Tanh)
                | Action::Arithmetic(Arithmetic::Pow)
        )
    }

    /// The trees, if it is a step of trees.
    pub fn trees(&self) -> Option<&Trees> {
        match &self.action {
            Action::Trees(trees) => Some(trees),
            _ => None,
        }
    }

    /// The positions of the values that it reads.
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }
}

/// A step that computes its value for a block of rows.
pub struct Run<'s, 'v> {
    pub step: &'s Step,
    pub values: &'v [Value<'s>],
    pub rows: usize,
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
            Action::Single(dense) => dense.run(self.single(0).numbers).into(),
            Action::Double(dense) => dense.run(self.double(0).numbers).into(),
            Action::OneHot(categories) => match self.source(0).0 {
                Value::Single(numbers) => {
                    one_hot(categories, numbers.iter().map(|v| f64::from(*v)))
                }
                Value::Double(numbers) => one_hot(categories, numbers.iter().copied()),
            }
            .into(),
            Action::LookUp(table) => table.run(self.source(0).0),
            Action::Trees(trees) => trees.score(self.single(0).numbers).into(),
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
fn floats<T: Real>(
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
fn compare<T: Real>(
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
fn nans<T: Real>(source: Columns<'_, T>) -> Vec<f32> {
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

fn one_hot(categories: &[f64], numbers: impl Iterator<Item = f64>) -> Vec<f32> {
    let mut all = Vec::with_capacity(numbers.size_hint().0 * categories.len());
    for value in numbers {
        all.extend(categories.iter().map(|category| f32::from(u8::from(value == *category))));
    }
    all
}

fn concat<T: Copy>(rows: usize, sources: &[Columns<'_, T>]) -> Vec<T> {
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
fn cast(value: &Value<'_>, from: Type, to: Type) -> Value<'static> {
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

/// The types as descriptions number them.
fn type_of(number: usize) -> Option<Type> {
    [Type::Single, Type::Double, Type::Truth, Type::Integer].get(number).copied()
}

/// Numbers as a value of this type has them.
fn stored(numbers: Vec<f64>, kind: Type) -> Value<'static> {
    match kind {
        Type::Single | Type::Truth => {
            numbers.iter().map(|number| *number as f32).collect::<Vec<_>>().into()
        }
        Type::Double | Type::Integer => numbers.into(),
    }
}

/// A product with weights, and the number of its outputs. `integers` are the outputs and the length
/// of a part, `numbers` the weights and the biases. None if they do not fit.
fn dense(of: Shape, integers: &[usize], numbers: &[f64]) -> Option<(Action, usize)> {
    let &[outputs, part] = integers else {
        return None;
    };
    let count = of.width.checked_mul(outputs)?;
    if outputs == 0 || numbers.len() != count.checked_add(outputs)? || of.constant {
        return None;
    }
    let (weights, bias) = numbers.split_at(count);
    let action = if of.kind == Type::Double {
        Action::Double(Dense::new(of.width, part, weights, bias.to_vec())?)
    } else {
        let single = |numbers: &[f64]| numbers.iter().map(|v| *v as f32).collect::<Vec<_>>();
        Action::Single(Dense::new(of.width, part, &single(weights), single(bias))?)
    };
    Some((action, outputs))
}

fn norm(name: &str) -> Option<Norm> {
    Some(match name {
        "row_sum" => Norm::Sum,
        "row_l1" => Norm::L1,
        "row_max" => Norm::Max,
        _ => return None,
    })
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "neg" => Function::Neg,
        "abs" => Function::Abs,
        "sqrt" => Function::Sqrt,
        "log" => Function::Log,
        "exp" => Function::Exp,
        "floor" => Function::Floor,
        "relu" => Function::Relu,
        "sigmoid" => Function::Sigmoid,
        "tanh" => Function::Tanh,
        _ => return None,
    })
}

/// Numbers are added and so on, truths are combined.
fn arithmetic(name: &str, kind: Type) -> Option<Arithmetic> {
    Some(match (name, kind) {
        ("add", Type::Single | Type::Double) => Arithmetic::Add,
        ("sub", Type::Single | Type::Double) => Arithmetic::Sub,
        ("mul", Type::Single | Type::Double) => Arithmetic::Mul,
        ("div", Type::Single | Type::Double) => Arithmetic::Div,
        ("pow", Type::Single | Type::Double) => Arithmetic::Pow,
        ("min", Type::Single | Type::Double) | ("and", Type::Truth) => Arithmetic::Min,
        ("max", Type::Single | Type::Double) | ("or", Type::Truth) => Arithmetic::Max,
        _ => return None,
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "less" => Comparison::Less,
        "less_or_equal" => Comparison::LessOrEqual,
        "greater" => Comparison::Greater,
        "greater_or_equal" => Comparison::GreaterOrEqual,
        "equal" => Comparison::Equal,
        _ => return None,
    })
}
