//! Tables that give a value for each of some numbers, as LabelEncoder does.

use crate::accel::native_model::value::{stored, Type, Value};

/// A value for each of some numbers.
#[derive(Clone, Debug)]
pub struct Table {
    pub to: Type,
    /// The value of all other numbers.
    default: f64,
    /// The value of NaN.
    of_nan: f64,
    /// In ascending order, none of them NaN.
    entries: Vec<(f64, f64)>,
}

impl Table {
    /// `numbers` are the default, the keys and as many values. None: they are not so many, or a key
    /// occurs twice.
    pub fn new(to: Type, numbers: &[f64]) -> Option<Table> {
        let (default, rest) = numbers.split_first()?;
        let (keys, values) = rest.split_at(rest.len() / 2);
        let pairs = keys.iter().copied().zip(values.iter().copied());
        let (of_nan, mut entries): (Vec<_>, Vec<_>) = pairs.partition(|pair| pair.0.is_nan());
        entries.sort_by(|one, other| one.0.total_cmp(&other.0));
        let ascending = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let fits = keys.len() == values.len() && of_nan.len() <= 1 && ascending;
        fits.then_some(Table {
            to,
            default: *default,
            of_nan: of_nan.first().map_or(*default, |pair| pair.1),
            entries,
        })
    }

    fn of(&self, number: f64) -> f64 {
        if number.is_nan() {
            return self.of_nan;
        }
        let at = self.entries.partition_point(|entry| entry.0 < number);
        match self.entries.get(at) {
            Some((key, value)) if *key == number => *value,
            _ => self.default,
        }
    }

    pub fn run(&self, value: &Value<'_>) -> Value<'static> {
        let found: Vec<f64> = match value {
            Value::Single(numbers) => numbers.iter().map(|v| self.of(f64::from(*v))).collect(),
            Value::Double(numbers) => numbers.iter().map(|v| self.of(*v)).collect(),
        };
        stored(found, self.to)
    }
}
