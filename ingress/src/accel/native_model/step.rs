//! The steps of a native model. Each computes a value from those of the steps before it, as the
//! operators of ONNX do.

use std::sync::Arc;

use crate::accel::native_model::dense::Dense;
use crate::accel::native_model::operation::{
    arithmetic, comparison, function, norm, place, Arithmetic, Comparison, Function, Norm, Place,
};
use crate::accel::native_model::table::Table;
use crate::accel::native_model::value::{stored, Shape, Type, Value};
use crate::accel::trees::Trees;

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
    pub action: Action,
    /// The positions of the values that it reads.
    pub sources: Vec<usize>,
    /// The shapes of the values that it reads.
    pub read: Vec<Shape>,
    /// The number of columns of its value.
    pub width: usize,
}

/// What a step computes.
#[derive(Clone, Debug)]
pub enum Action {
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
    Place(Place),
    Columns(Vec<usize>),
    Concat,
    Impute(f64, Vec<f64>),
    OneHot(Vec<f64>),
    LookUp(Table),
    Trees(Arc<Trees>),
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
            ("concat", Some(of), _) if same => {
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
                .filter(|trees| {
                    let read =
                        of.kind == Type::Single || (of.kind == Type::Double && trees.is_double());
                    read && trees.width() == of.width && !constant
                })
                .map(|trees| {
                    let outputs = trees.outputs().count();
                    (Action::Trees(trees), shape(Type::Single, outputs))
                }),
            (name, Some(of), 1) if float(&of) && norm(name).is_some() => {
                norm(name).map(|norm| (Action::Norm(norm), shape(of.kind, 1)))
            }
            (name, Some(of), 1) if float(&of) && place(name).is_some() => {
                place(name).map(|place| (Action::Place(place), shape(Type::Integer, 1)))
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
        // Two numbers have one order.
        if matches!(self.action, Action::Norm(Norm::Sum | Norm::L1 | Norm::Product)) {
            return self.read[0].width <= 2;
        }
        !matches!(
            self.action,
            Action::Single(_)
                | Action::Double(_)
                | Action::Softmax
                | Action::Function(Log | Exp | Sigmoid | Tanh)
                | Action::Arithmetic(Arithmetic::Pow)
        )
    }

    /// Whether a last bit of what it reads may change its value beyond a last bit.
    pub fn is_sudden(&self) -> bool {
        matches!(self.action, Action::Trees(_) | Action::Place(_))
    }

    /// Whether it makes float32 of float64.
    pub fn narrows(&self) -> bool {
        matches!(self.action, Action::Cast(Type::Single)) && self.read[0].kind == Type::Double
    }

    /// Whether it computes float64, whose last bits alone may differ from those of ONNX Runtime.
    pub fn is_double(&self) -> bool {
        self.read.iter().all(|shape| shape.kind == Type::Double)
    }

    /// The trees, if it is a step of trees.
    pub fn trees(&self) -> Option<&Trees> {
        match &self.action {
            Action::Trees(trees) => Some(trees),
            _ => None,
        }
    }
}

/// The types as descriptions number them.
fn type_of(number: usize) -> Option<Type> {
    [Type::Single, Type::Double, Type::Truth, Type::Integer].get(number).copied()
}

/// A product with weights, and the number of its outputs. `integers` are the outputs, the length
/// of a part and whether Relu follows, `numbers` the weights and the biases. None if they do not fit.
fn dense(of: Shape, integers: &[usize], numbers: &[f64]) -> Option<(Action, usize)> {
    let &[outputs, part, relu] = integers else {
        return None;
    };
    let count = of.width.checked_mul(outputs)?;
    if outputs == 0 || numbers.len() != count.checked_add(outputs)? || of.constant {
        return None;
    }
    let (weights, bias) = numbers.split_at(count);
    let action = if of.kind == Type::Double {
        Action::Double(Dense::new(of.width, part, weights, bias.to_vec(), relu != 0)?)
    } else {
        let single = |numbers: &[f64]| numbers.iter().map(|v| *v as f32).collect::<Vec<_>>();
        Action::Single(Dense::new(of.width, part, &single(weights), single(bias), relu != 0)?)
    };
    Some((action, outputs))
}
