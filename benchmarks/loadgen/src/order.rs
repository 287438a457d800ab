//! Which of N things comes next: each once, any as likely as any other, or some far more often.

/// A small random generator (SplitMix64): the same seed gives the same calls.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// In [0, 1).
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In [0, below).
    #[inline]
    pub fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(below)) >> 64) as u64
    }

    /// With mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Each once in a scattered order, then round again.
    Distinct,
    Uniform,
    /// The k-th most wanted is asked for k to the minus *exponent* as often as the first.
    Zipf(f64),
}

/// Draws numbers below *count*. One of several that share a walk takes every *step*-th place of it.
pub struct Draw {
    order: Order,
    count: u64,
    place: u64,
    step: u64,
    stride: u64,
    /// Walker's alias table: (chance to stay, else go to), one entry a number.
    table: Vec<(f32, u32)>,
}

impl Draw {
    pub fn new(order: Order, count: u64, first: u64, step: u64) -> Draw {
        let table = match order {
            Order::Zipf(exponent) => alias_table(count as usize, exponent),
            _ => Vec::new(),
        };
        let stride = stride(count);
        Draw {
            order,
            count,
            place: first % count,
            step: step % count,
            stride,
            table,
        }
    }

    #[inline]
    pub fn next(&mut self, random: &mut Random) -> u64 {
        match self.order {
            Order::Distinct => {
                let drawn = self.scattered(self.place);
                self.place += self.step;
                if self.place >= self.count {
                    self.place -= self.count;
                }
                drawn
            }
            Order::Uniform => random.below(self.count),
            Order::Zipf(_) => {
                let column = random.below(self.count);
                let (stay, other) = self.table[column as usize];
                let rank = if random.unit() < f64::from(stay) {
                    column
                } else {
                    u64::from(other)
                };
                // Whoever is wanted most must not also be neighbours in the store.
                self.scattered(rank)
            }
        }
    }

    #[inline]
    fn scattered(&self, place: u64) -> u64 {
        (u128::from(place) * u128::from(self.stride) % u128::from(self.count)) as u64
    }
}

/// A step that visits all of *count* before any twice: near the golden section, no common divisor.
fn stride(count: u64) -> u64 {
    let mut step = ((count as f64 * 0.618_033_988_75) as u64).max(1);
    while divisor(step, count) != 1 {
        step += 1;
    }
    step
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

fn alias_table(count: usize, exponent: f64) -> Vec<(f32, u32)> {
    let weights: Vec<f64> = (1..=count)
        .map(|rank| (rank as f64).powf(-exponent))
        .collect();
    let mean = weights.iter().sum::<f64>() / count as f64;
    let mut left: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
    let mut table: Vec<(f32, u32)> = (0..count).map(|number| (1.0, number as u32)).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..count).partition(|&number| left[number] < 1.0);
    while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
        table[poor] = (left[poor] as f32, rich as u32);
        left[rich] -= 1.0 - left[poor];
        if left[rich] < 1.0 {
            large.pop();
            small.push(rich);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_visits_all_before_any_twice() {
        for count in [1, 2, 7, 100, 1_000] {
            for shares in [1, 3] {
                let mut seen: Vec<u64> = Vec::new();
                for share in 0..shares {
                    let mut draw = Draw::new(Order::Distinct, count, share, shares);
                    let mine = (count + shares - 1 - share) / shares;
                    seen.extend((0..mine).map(|_| draw.next(&mut Random::new(1))));
                }
                seen.sort_unstable();
                assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{count} in {shares}");
            }
        }
    }

    #[test]
    fn uniform_is_flat() {
        let (mut draw, mut random) = (Draw::new(Order::Uniform, 10, 0, 1), Random::new(3));
        let mut counts = [0; 10];
        for _ in 0..100_000 {
            counts[draw.next(&mut random) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&count| (9_500..10_500).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn zipf_follows_its_law() {
        let (mut draw, mut random) = (Draw::new(Order::Zipf(1.0), 1_000, 0, 1), Random::new(5));
        let mut counts = vec![0f64; 1_000];
        for _ in 0..1_000_000 {
            counts[draw.next(&mut random) as usize] += 1.0;
        }
        counts.sort_by(|a, b| b.total_cmp(a));
        let harmonic: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10] {
            let expected = 1e6 / f64::from(rank) / harmonic;
            let share = counts[rank as usize - 1] / expected;
            assert!((0.95..1.05).contains(&share), "rank {rank}: {share}");
        }
    }

    #[test]
    fn normal_has_its_mean_and_deviation() {
        let mut random = Random::new(9);
        let drawn: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let mean = drawn.iter().sum::<f64>() / 1e5;
        let square = drawn.iter().map(|value| value * value).sum::<f64>() / 1e5;
        assert!(
            mean.abs() < 0.02 && (square - 1.0).abs() < 0.02,
            "{mean} {square}"
        );
    }
}
