//! Products of rows with a matrix of weights, for layers and linear models.
//!
//! Each sum adds the products of a row in the order of its columns, with one rounding for product and
//! sum, in parts of `part` columns. So do the kernels of ONNX Runtime for several rows, and so the bits
//! are the same. A row has the same bits in every batch.

use crate::accel::native_model::real::Real;

/// Sums that are computed together: a vector of AVX-512, two of AVX2.
const LANES: usize = 16;

/// A matrix of weights, with a bias for each column.
#[derive(Clone, Debug)]
pub struct Dense<T> {
    inputs: usize,
    /// Columns whose products are added before they are added to the sum.
    part: usize,
    /// One for each output.
    bias: Vec<T>,
    /// The weights in tiles of LANES outputs, and of one output if there is one: of a tile, row by row.
    /// The last tile is filled up with zeros.
    tiles: Vec<T>,
}

impl<T: Real> Dense<T> {
    /// Take `weights`, (inputs, outputs) flat, and a bias for each output.
    ///
    /// None if there is no input, no output or no column in a part, or the lengths do not fit.
    pub fn new(inputs: usize, part: usize, weights: &[T], bias: Vec<T>) -> Option<Dense<T>> {
        let outputs = bias.len();
        if inputs == 0 || outputs == 0 || part == 0 || inputs.checked_mul(outputs)? != weights.len()
        {
            return None;
        }
        let lanes = if outputs == 1 { 1 } else { LANES };
        let mut tiles = Vec::with_capacity(outputs.div_ceil(lanes) * lanes * inputs);
        for first in (0..outputs).step_by(lanes) {
            for row in weights.chunks_exact(outputs) {
                let lane = |at: usize| row.get(first + at).copied().unwrap_or(T::ZERO);
                tiles.extend((0..lanes).map(lane));
            }
        }
        Some(Dense {
            inputs,
            part,
            bias,
            tiles,
        })
    }

    /// The products of `rows`, (R, inputs) flat: (R, outputs) flat.
    #[inline(always)]
    pub fn run(&self, rows: &[T]) -> Vec<T> {
        let count = rows.len() / self.inputs;
        let mut sums = vec![T::ZERO; count * self.bias.len()];
        if self.bias.len() == 1 {
            self.run_tiles::<8, 1, 1>(rows, &mut sums);
        } else if count < 4 {
            // Sums of several tiles keep the processor busy, where one would wait for each addition.
            self.run_tiles::<1, 4, LANES>(rows, &mut sums);
        } else {
            self.run_tiles::<4, 1, LANES>(rows, &mut sums);
        }
        sums
    }

    /// Compute all sums, ROWS rows and TILES tiles of WIDTH outputs at a time. What is left over is
    /// computed one by one.
    #[inline(always)]
    fn run_tiles<const ROWS: usize, const TILES: usize, const WIDTH: usize>(
        &self,
        rows: &[T],
        sums: &mut [T],
    ) {
        let (inputs, outputs) = (self.inputs, self.bias.len());
        let tile = inputs * WIDTH;
        let blocks = rows.chunks(ROWS * inputs).zip(sums.chunks_mut(ROWS * outputs));
        for (rows, sums) in blocks {
            let whole = rows.len() == ROWS * inputs;
            let mut first = 0;
            while first < outputs {
                let at = first / WIDTH * tile;
                if whole && self.tiles.len() - at >= TILES * tile {
                    let tiles = &self.tiles[at..][..TILES * tile];
                    self.run_block::<ROWS, TILES, WIDTH>(tiles, rows, sums, first);
                    first += TILES * WIDTH;
                } else {
                    let tiles = &self.tiles[at..][..tile];
                    let each = rows.chunks_exact(inputs).zip(sums.chunks_exact_mut(outputs));
                    for (row, sums) in each {
                        self.run_block::<1, 1, WIDTH>(tiles, row, sums, first);
                    }
                    first += WIDTH;
                }
            }
        }
    }

    /// Compute the sums of ROWS rows from output `first` on.
    #[inline(always)]
    fn run_block<const ROWS: usize, const TILES: usize, const WIDTH: usize>(
        &self,
        tiles: &[T],
        rows: &[T],
        sums: &mut [T],
        first: usize,
    ) {
        let (inputs, outputs) = (self.inputs, self.bias.len());
        let rows: [&[T]; ROWS] = std::array::from_fn(|row| &rows[row * inputs..][..inputs]);
        let mut totals = [[[T::ZERO; WIDTH]; TILES]; ROWS];
        for totals in &mut totals {
            for (total, bias) in totals.as_flattened_mut().iter_mut().zip(&self.bias[first..]) {
                *total = *bias;
            }
        }
        let mut begin = 0;
        while begin < inputs {
            let end = inputs.min(begin + self.part);
            let mut part = [[[T::ZERO; WIDTH]; TILES]; ROWS];
            for column in begin..end {
                for tile in 0..TILES {
                    let weights = &tiles[(tile * inputs + column) * WIDTH..][..WIDTH];
                    for row in 0..ROWS {
                        let value = rows[row][column];
                        for lane in 0..WIDTH {
                            let sum = part[row][tile][lane];
                            part[row][tile][lane] = value.mul_add(weights[lane], sum);
                        }
                    }
                }
            }
            for row in 0..ROWS {
                for tile in 0..TILES {
                    for lane in 0..WIDTH {
                        totals[row][tile][lane] = part[row][tile][lane] + totals[row][tile][lane];
                    }
                }
            }
            begin = end;
        }
        // The last tile may have more lanes than there are outputs.
        for (row, totals) in totals.iter().enumerate() {
            let kept = (outputs - first).min(TILES * WIDTH);
            let sums = &mut sums[row * outputs + first..][..kept];
            sums.copy_from_slice(&totals.as_flattened()[..kept]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_one_row_after_the_other() {
        for (inputs, outputs, part) in [(1, 1, 1), (20, 1, 256), (7, 3, 2), (5, 16, 5), (9, 70, 4)]
        {
            let number = |at: usize| ((at * 7_919) % 101) as f32 / 17.0 - 3.0;
            let weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
            let bias: Vec<f32> = (0..outputs).map(|at| number(at + 3)).collect();
            let dense = Dense::new(inputs, part, &weights, bias.clone()).expect("lengths that fit");
            for count in [0, 1, 3, 4, 7, 8, 21] {
                let rows: Vec<f32> = (0..count * inputs).map(|at| number(at + 11)).collect();
                let mut expected = Vec::new();
                for row in rows.chunks_exact(inputs) {
                    for output in 0..outputs {
                        let mut total = bias[output];
                        for begin in (0..inputs).step_by(part) {
                            let products =
                                (begin..inputs.min(begin + part)).fold(0.0, |sum, at| {
                                    f32::mul_add(row[at], weights[at * outputs + output], sum)
                                });
                            total += products;
                        }
                        expected.push(total);
                    }
                }
                assert_eq!(dense.run(&rows), expected, "{count} rows, {inputs} x {outputs}");
            }
        }
    }

    #[test]
    fn weights_of_other_lengths_are_refused() {
        for (inputs, part, weights, bias) in
            [(2, 1, 3, 2), (0, 1, 0, 1), (1, 0, 1, 1), (1, 1, 0, 0)]
        {
            let weights = vec![1.0_f32; weights];
            assert!(Dense::new(inputs, part, &weights, vec![0.0; bias]).is_none());
        }
    }
}
