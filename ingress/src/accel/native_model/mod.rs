//! Scores the rows of a model without Python and without ONNX Runtime: by steps that compute what the
//! operators of its graph do. Trees, linear models, small networks and what stands beside them.
//!
//! `gateway/models/native_steps.py` reads the steps from a graph. Before a version answers calls,
//! `gateway/models/native_scorer.py` compares its scores with those of ONNX Runtime.

mod compute;
mod dense;
mod operation;
mod real;
mod run;
pub mod step;
mod table;
pub mod value;

use std::borrow::Cow;

use crate::accel::native_model::run::Run;
use crate::accel::native_model::step::{Description, Step};
use crate::accel::native_model::value::{Shape, Type, Value};
use crate::accel::trees::WIDTH_MAX;
use crate::sys::vectors::{self, Vectorized};

/// Rows that go through all steps together. Their values stay in the processor's second cache.
const BLOCK_ROWS: usize = 64;
/// Most columns of all values together: a block of them has at most 32 MB.
pub const COLUMNS_MAX: usize = 1 << 16;
/// Most numbers of all constants, tables and weights together. The tables of an isolation forest of 100
/// trees have some 100,000; `gateway/models/steps/step_operators.py` allows fewer weights.
pub const NUMBERS_MAX: usize = 1 << 18;

/// How a value is rounded, compared with ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rounded {
    /// It has the same bits.
    Alike,
    /// It is float32 of float64 numbers whose last bits alone differ: one number in some 2^27 differs.
    Nearly,
    /// It is such float64 numbers.
    InLastBits,
    /// It may have other last bits.
    Otherwise,
}

impl Rounded {
    /// How the value of a step is rounded that reads values of which the worst is rounded like `worst`.
    /// The error says that the step may not read them.
    fn by(step: &Step, worst: Rounded) -> Result<Rounded, String> {
        if step.is_sudden() && worst > Rounded::Nearly {
            return Err(
                "its trees or ArgMax read what ONNX Runtime may round differently".to_owned()
            );
        }
        let own = match (step.is_exact(), step.is_double()) {
            (true, _) => Rounded::Alike,
            (false, true) => Rounded::InLastBits,
            (false, false) => Rounded::Otherwise,
        };
        Ok(match own.max(worst) {
            Rounded::InLastBits if step.narrows() => Rounded::Nearly,
            // Once it is float64 again, it is no longer rounded away.
            rounded => rounded,
        })
    }
}

/// A model that scores (R, width) float32 rows.
#[derive(Clone, Debug)]
pub struct NativeModel {
    width: usize,
    outputs: usize,
    steps: Vec<Step>,
    exact: bool,
}

impl NativeModel {
    /// A model of rows with `width` inputs. The last step computes the scores.
    ///
    /// The error says which step does not fit, or that it is too large.
    pub fn new(width: usize, described: Vec<Description>) -> Result<NativeModel, String> {
        if !(1..=WIDTH_MAX).contains(&width) {
            return Err(format!("{width} inputs; 1 to {WIDTH_MAX} are known"));
        }
        let inputs = Shape {
            kind: Type::Single,
            width,
            constant: false,
        };
        let (mut shapes, mut steps) = (vec![inputs], Vec::<Step>::new());
        let mut rounded = vec![Rounded::Alike];
        let (mut numbers, mut columns) = (0_usize, 0_usize);
        for description in described {
            numbers += description.numbers.len();
            let (step, shape) = Step::build(description, &shapes)?;
            columns += shape.width;
            if numbers > NUMBERS_MAX || columns > COLUMNS_MAX {
                return Err(format!(
                    "more than {NUMBERS_MAX} constants and weights, or {COLUMNS_MAX} columns"
                ));
            }
            let worst = step.sources.iter().map(|source| rounded[*source]).max();
            rounded.push(Rounded::by(&step, worst.unwrap_or(Rounded::Alike))?);
            steps.push(step);
            shapes.push(shape);
        }
        match shapes.last() {
            Some(last) if last.kind == Type::Single && !last.constant && !steps.is_empty() => {
                Ok(NativeModel {
                    width,
                    outputs: last.width,
                    steps,
                    exact: rounded.last() == Some(&Rounded::Alike),
                })
            }
            _ => Err("its last step gives no scores of float32".to_owned()),
        }
    }

    /// The number of inputs of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of scores of a row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether every step gives the same bits as ONNX Runtime's operators.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Score rows with the widest vectors that this processor has. `rows` is (R, width) flat, and the
    /// result is (R, outputs) flat. A row has the same bits in every batch.
    pub fn score(&self, rows: &[f32]) -> Vec<f32> {
        // Trees alone need no blocks.
        if let [step] = &self.steps[..] {
            if let Some(trees) = step.trees() {
                return trees.score(rows);
            }
        }
        self.score_blocks(rows, false)
    }

    /// Score rows with the vectors that every processor has. The bits are those of `score`.
    pub fn score_portable(&self, rows: &[f32]) -> Vec<f32> {
        self.score_blocks(rows, true)
    }

    fn score_blocks(&self, rows: &[f32], portable: bool) -> Vec<f32> {
        let mut scores = Vec::with_capacity(rows.len() / self.width * self.outputs);
        for block in rows.chunks(BLOCK_ROWS * self.width) {
            let mut values = Vec::with_capacity(self.steps.len() + 1);
            values.push(Value::Single(Cow::Borrowed(block)));
            for step in &self.steps {
                let run = Run {
                    step,
                    values: &values,
                    rows: block.len() / self.width,
                    portable,
                };
                values.push(if portable { run.run_portable() } else { vectors::run(run) });
            }
            if let Some(Value::Single(last)) = values.last() {
                scores.extend_from_slice(last);
            }
        }
        scores
    }
}
