//! Products of rows with a matrix of weights, for layers and linear models.
//!
//! Each sum adds the products of a row in the order of its columns, with one rounding for product and
//! sum, in parts of `part` columns. So do the kernels of ONNX Runtime for several rows, and so the bits
//! are the same. A row has the same bits in every batch.

use crate::accel::native_model::real::Real;
use crate::sys::vectors::{self, Vectorized};

/// Sums that are computed together: a vector of AVX-512, two of AVX2.
const LANES: usize = 16;

/// A matrix of weights, with a bias for each column.
#[derive(Clone, Debug)]
pub struct Dense<T> {
    inputs: usize,
    /// Columns whose products are added before they are added to the sum.
    part: usize,
    outputs: usize,
    /// One for each output and lane.
    lane_bias: Vec<T>,
    /// The weights in tiles of LANES outputs, and of one output if there is one: of a tile, row by row.
    /// The last tile is filled up with zeros.
    tiles: Vec<T>,
    relu: bool,
}

impl<T: Real> Dense<T> {
    /// Take `weights`, (inputs, outputs) flat, and a bias for each output.
    ///
    /// `relu` says that what is below 0 becomes 0. None if there is no input, no output or no column in a
    /// part, or the lengths do not fit.
    pub fn new(
        inputs: usize,
        part: usize,
        weights: &[T],
        bias: Vec<T>,
        relu: bool,
    ) -> Option<Dense<T>> {
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
        let mut lane_bias = bias;
        lane_bias.resize(outputs.div_ceil(lanes) * lanes, T::ZERO);
        Some(Dense {
            inputs,
            part,
            outputs,
            lane_bias,
            tiles,
            relu,
        })
    }

    /// The products of `rows`, (R, inputs) flat: (R, outputs) flat. `portable` says that the vectors are
    /// those which every processor has.
    ///
    /// The loops are compiled apart from those of other steps. Among these the compiler keeps sums in
    /// memory.
    pub fn score(&self, rows: &[T], portable: bool) -> Vec<T> {
        match (portable, self.outputs) {
            (true, _) => self.run(rows),
            (false, 1) => vectors::run(NarrowRun(self, rows)),
            (false, _) => vectors::run(WideRun(self, rows)),
        }
    }

    #[inline(always)]
    fn run(&self, rows: &[T]) -> Vec<T> {
        let count = rows.len() / self.inputs;
        let mut sums = vec![T::ZERO; count * self.outputs];
        if self.outputs == 1 {
            self.run_tiles::<8, 1, 1>(rows, &mut sums);
        } else {
            // Sums of six rows fill the registers of AVX2. Of few rows, sums of several tiles keep the
            // processor busy, where one would wait for each addition. Eight rows are twice four.
            let in_sixes = (count / 6 - usize::from(count % 6 == 2 && count > 2)) * 6;
            let in_fours = (count - in_sixes) / 4 * 4;
            let (sixes, rest) = rows.split_at(in_sixes * self.inputs);
            let (six_sums, rest_sums) = sums.split_at_mut(in_sixes * self.outputs);
            self.run_tiles::<6, 1, LANES>(sixes, six_sums);
            let (fours, rest) = rest.split_at(in_fours * self.inputs);
            let (four_sums, rest_sums) = rest_sums.split_at_mut(in_fours * self.outputs);
            self.run_tiles::<4, 1, LANES>(fours, four_sums);
            self.run_tiles::<1, 4, LANES>(rest, rest_sums);
        }
        if self.relu {
            sums.iter_mut().for_each(|sum| *sum = sum.higher(T::ZERO));
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
        let (inputs, outputs) = (self.inputs, self.outputs);
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
        let (inputs, outputs) = (self.inputs, self.outputs);
        let rows: [&[T]; ROWS] = std::array::from_fn(|row| &rows[row * inputs..][..inputs]);
        let bias: [[T; WIDTH]; TILES] = std::array::from_fn(|tile| {
            let bias = &self.lane_bias[first + tile * WIDTH..][..WIDTH];
            std::array::from_fn(|lane| bias[lane])
        });
        let mut totals = [bias; ROWS];
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
        // The last tile may have more lanes than there are outputs. A copy of a fixed length is no call.
        for (row, totals) in totals.iter().enumerate() {
            let kept = (outputs - first).min(TILES * WIDTH);
            let sums = &mut sums[row * outputs + first..][..kept];
            if kept == TILES * WIDTH {
                for (sums, total) in sums.chunks_exact_mut(WIDTH).zip(totals) {
                    sums.copy_from_slice(total);
                }
            } else {
                sums.copy_from_slice(&totals.as_flattened()[..kept]);
            }
        }
    }
}

/// Products with several outputs.
struct WideRun<'a, T>(&'a Dense<T>, &'a [T]);

/// Products with one output. For AVX-512 the compiler would gather single numbers into vectors.
struct NarrowRun<'a, T>(&'a Dense<T>, &'a [T]);

impl<T: Real> Vectorized for WideRun<'_, T> {
    type Output = Vec<T>;
    const FOR_AVX512: bool = true;

    fn run_portable(self) -> Vec<T> {
        self.run_avx2()
    }

    #[inline(always)]
    fn run_avx2(self) -> Vec<T> {
        self.0.run(self.1)
    }
}

impl<T: Real> Vectorized for NarrowRun<'_, T> {
    type Output = Vec<T>;

    fn run_portable(self) -> Vec<T> {
        self.run_avx2()
    }

    #[inline(always)]
    fn run_avx2(self) -> Vec<T> {
        self.0.run(self.1)
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
            let relu = inputs % 2 == 0;
            let dense =
                Dense::new(inputs, part, &weights, bias.clone(), relu).expect("lengths that fit");
            for count in [0, 1, 3, 4, 7, 8, 10, 21] {
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
                        expected.push(if relu { total.max(0.0) } else { total });
                    }
                }
                assert_eq!(
                    dense.score(&rows, false),
                    expected,
                    "{count} rows, {inputs} x {outputs}"
                );
            }
        }
    }

    #[test]
    fn weights_of_other_lengths_are_refused() {
        for (inputs, part, weights, bias) in
            [(2, 1, 3, 2), (0, 1, 0, 1), (1, 0, 1, 1), (1, 1, 0, 0)]
        {
            let weights = vec![1.0_f32; weights];
            assert!(Dense::new(inputs, part, &weights, vec![0.0; bias], false).is_none());
        }
    }
}
