//! What steps do with each number, pair of numbers or row, and their names in descriptions.

use crate::accel::native_model::value::Type;

/// Functions of each number alone.
#[derive(Clone, Copy, Debug)]
pub enum Function {
    Neg,
    Abs,
    Sqrt,
    Log,
    Exp,
    Floor,
    Ceil,
    Round,
    Sign,
    Relu,
    Sigmoid,
    Tanh,
    IsNaN,
    Not,
}

#[derive(Clone, Copy, Debug)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Pow,
}

#[derive(Clone, Copy, Debug)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

/// What is computed of a row as a whole.
#[derive(Clone, Copy, Debug)]
pub enum Norm {
    /// The sum of all numbers.
    Sum,
    /// The sum of absolute values.
    L1,
    /// The highest number.
    Max,
    /// The lowest number.
    Min,
    /// The product of all numbers.
    Product,
}

/// Which column of a row is meant by its number.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The first of the highest numbers.
    Highest,
    /// The first of the lowest numbers.
    Lowest,
}

pub fn place(name: &str) -> Option<Place> {
    Some(match name {
        "arg_max" => Place::Highest,
        "arg_min" => Place::Lowest,
        _ => return None,
    })
}

pub fn norm(name: &str) -> Option<Norm> {
    Some(match name {
        "row_sum" => Norm::Sum,
        "row_l1" => Norm::L1,
        "row_max" => Norm::Max,
        "row_min" => Norm::Min,
        "row_product" => Norm::Product,
        _ => return None,
    })
}

pub fn function(name: &str) -> Option<Function> {
    Some(match name {
        "neg" => Function::Neg,
        "abs" => Function::Abs,
        "sqrt" => Function::Sqrt,
        "log" => Function::Log,
        "exp" => Function::Exp,
        "floor" => Function::Floor,
        "ceil" => Function::Ceil,
        "round" => Function::Round,
        "sign" => Function::Sign,
        "relu" => Function::Relu,
        "sigmoid" => Function::Sigmoid,
        "tanh" => Function::Tanh,
        _ => return None,
    })
}

/// Numbers are added and so on, truths are combined.
pub fn arithmetic(name: &str, kind: Type) -> Option<Arithmetic> {
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

pub fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "less" => Comparison::Less,
        "less_or_equal" => Comparison::LessOrEqual,
        "greater" => Comparison::Greater,
        "greater_or_equal" => Comparison::GreaterOrEqual,
        "equal" => Comparison::Equal,
        _ => return None,
    })
}
