//! The messages that are sent: a new PredictRequest for each call, or messages from a file.

use crate::protobuf::{write_bytes, write_varint};
use fastrand::Rng;

/// A kind of entity key: `S#######:100000` means the keys S0000000 to S0099999.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyPattern {
    prefix: String,
    digits: usize,
    suffix: String,
    pub count: u64,
}

impl KeyPattern {
    /// Reads `PREFIX###SUFFIX:COUNT`.
    pub fn parse(text: &str) -> Result<KeyPattern, String> {
        let wrong = |why: &str| format!("key {text:?} {why}; write it as S#######:100000");
        let (pattern, count) = text.rsplit_once(':').ok_or_else(|| wrong("has no :COUNT"))?;
        let count: u64 = count.parse().map_err(|_| wrong("has a COUNT that is no number"))?;
        let first = pattern.find('#').ok_or_else(|| wrong("has no #"))?;
        let suffix = pattern[first..].trim_start_matches('#');
        let digits = pattern.len() - first - suffix.len();
        if count == 0 || digits > 18 || suffix.contains('#') {
            return Err(wrong("needs a COUNT above 0 and one run of at most 18 #"));
        }
        if count > 10u64.pow(digits as u32) {
            return Err(wrong(&format!("has too few # for {count} keys")));
        }
        Ok(KeyPattern { prefix: pattern[..first].into(), digits, suffix: suffix.into(), count })
    }

    /// Appends key `number` as field 1 of a Row.
    #[inline]
    fn write(&self, mut number: u64, out: &mut Vec<u8>) {
        out.push(1 << 3 | 2);
        write_varint(out, (self.prefix.len() + self.digits + self.suffix.len()) as u64);
        out.extend_from_slice(self.prefix.as_bytes());
        let start = out.len();
        out.resize(start + self.digits, b'0');
        for digit in out[start..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        out.extend_from_slice(self.suffix.as_bytes());
    }
}

/// Visits 0 to count − 1 in a scattered order, each once before any comes again.
struct ScatteredOrder {
    next: u64,
    stride: u64,
    count: u64,
}

impl ScatteredOrder {
    /// Begins at position `first` of the order.
    fn new(count: u64, first: u64) -> ScatteredOrder {
        // A stride without a common divisor visits all numbers. One near the golden section of
        // the count keeps numbers that are drawn one after the other far apart.
        let mut stride = ((count as f64 * 0.618_033_988_75) as u64).max(1);
        while greatest_common_divisor(stride, count) != 1 {
            stride += 1;
        }
        let next = (u128::from(first % count) * u128::from(stride) % u128::from(count)) as u64;
        ScatteredOrder { next, stride: stride % count, count }
    }

    #[inline]
    fn draw(&mut self) -> u64 {
        let drawn = self.next;
        self.next += self.stride;
        if self.next >= self.count {
            self.next -= self.count;
        }
        drawn
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// What each PredictRequest holds.
#[derive(Clone, Debug, Default)]
pub struct RequestSpec {
    pub model: String,
    pub rows: usize,
    /// One pattern for each entity. The first draws its keys in a scattered order without
    /// repetition; the others draw at random.
    pub keys: Vec<KeyPattern>,
    /// Number of float inputs in each row, drawn from the standard normal distribution.
    pub inputs: usize,
}

/// Number of normally distributed values that are drawn in advance. A row's inputs are a slice of
/// these values that begins at random.
const NORMAL_VALUES: usize = 4_096;

enum Source {
    Spec { spec: RequestSpec, order: ScatteredOrder, normal_values: Vec<u8>, row: Vec<u8> },
    File { content: Vec<u8>, order: ScatteredOrder, ranges: Vec<(usize, usize)> },
}

/// Writes one message after another.
pub struct Requests {
    source: Source,
    random: Rng,
}

impl Requests {
    /// Makes messages as `spec` says. The first message uses key number `first` of the order.
    pub fn from_spec(spec: RequestSpec, first: u64) -> Requests {
        let mut random = Rng::with_seed(1);
        let count = spec.keys.first().map_or(1, |pattern| pattern.count);
        let normal_values = (0..NORMAL_VALUES + spec.inputs)
            .flat_map(|_| (normal(&mut random) as f32).to_le_bytes())
            .collect();
        let order = ScatteredOrder::new(count, first);
        Requests { source: Source::Spec { spec, order, normal_values, row: Vec::new() }, random }
    }

    /// Takes messages from the content of a file, in which each message follows its length (u32,
    /// little-endian). The first message is number `first` of the order.
    pub fn from_file(content: Vec<u8>, first: u64) -> Result<Requests, String> {
        let ranges = message_ranges(&content)?;
        let order = ScatteredOrder::new(ranges.len() as u64, first);
        Ok(Requests { source: Source::File { content, order, ranges }, random: Rng::with_seed(1) })
    }

    /// Appends one message.
    #[inline]
    pub fn write(&mut self, out: &mut Vec<u8>) {
        match &mut self.source {
            Source::File { content, order, ranges } => {
                let (start, end) = ranges[order.draw() as usize];
                out.extend_from_slice(&content[start..end]);
            }
            Source::Spec { spec, order, normal_values, row } => {
                write_bytes(out, 1, spec.model.as_bytes());
                for _ in 0..spec.rows {
                    row.clear();
                    for (place, pattern) in spec.keys.iter().enumerate() {
                        let scattered = place == 0;
                        let number =
                            if scattered { order.draw() } else { self.random.u64(..pattern.count) };
                        pattern.write(number, row);
                    }
                    if spec.inputs > 0 {
                        let start = self.random.usize(..NORMAL_VALUES) * 4;
                        write_bytes(row, 2, &normal_values[start..start + spec.inputs * 4]);
                    }
                    write_bytes(out, 2, row);
                }
            }
        }
    }
}

/// Draws from the standard normal distribution (Box–Muller).
fn normal(random: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// Returns where each message begins and ends.
fn message_ranges(content: &[u8]) -> Result<Vec<(usize, usize)>, String> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    while let Some(length) = content[at..].first_chunk::<4>() {
        let start = at + 4;
        at = start + u32::from_le_bytes(*length) as usize;
        if at > content.len() {
            let missing = at - content.len();
            return Err(format!(
                "the file of messages ends {missing} bytes before its last message"
            ));
        }
        ranges.push((start, at));
    }
    if ranges.is_empty() || at != content.len() {
        return Err("the file of messages is empty or ends inside a length".into());
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::Fields;
    use std::collections::HashSet;

    #[test]
    fn a_key_is_padded_to_its_digits() {
        let pattern = KeyPattern::parse("S-###x:1000").unwrap();
        let mut out = Vec::new();
        pattern.write(42, &mut out);
        assert_eq!(out, b"\x0a\x06S-042x");
    }

    #[test]
    fn a_malformed_key_pattern_is_refused_with_an_example() {
        for text in ["S###", "S:10", "S#:11", "S#:0", "S#a#:5"] {
            let error = KeyPattern::parse(text).unwrap_err();
            assert!(error.contains("S#######:100000"), "{error}");
        }
    }

    #[test]
    fn scattered_order_visits_all_numbers_before_any_comes_again() {
        for count in [1, 2, 7, 100, 1_000] {
            let mut order = ScatteredOrder::new(count, 3);
            let mut drawn: Vec<u64> = (0..count).map(|_| order.draw()).collect();
            assert_eq!(drawn[0], order.draw(), "the order repeats");
            drawn.sort_unstable();
            assert_eq!(drawn, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn scattered_order_begins_where_it_is_told() {
        let mut order = ScatteredOrder::new(1_000, 0);
        let drawn: Vec<u64> = (0..10).map(|_| order.draw()).collect();
        assert_eq!(ScatteredOrder::new(1_000, 9).draw(), drawn[9]);
    }

    #[test]
    fn normal_values_have_mean_0_and_deviation_1() {
        let mut random = Rng::with_seed(9);
        let drawn: Vec<f64> = (0..100_000).map(|_| normal(&mut random)).collect();
        let mean = drawn.iter().sum::<f64>() / 1e5;
        let square = drawn.iter().map(|value| value * value).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.02, "{mean} {square}");
    }

    #[test]
    fn a_message_from_a_spec_is_a_predict_request() {
        let keys = vec![KeyPattern::parse("S###:500").unwrap(), KeyPattern::parse("O#:9").unwrap()];
        let spec = RequestSpec { model: "churn".into(), rows: 2, keys, inputs: 3 };
        let mut requests = Requests::from_spec(spec, 0);
        let mut first_keys = HashSet::new();
        for _ in 0..250 {
            let mut message = Vec::new();
            requests.write(&mut message);
            let fields: Vec<_> = Fields(&message).collect();
            assert_eq!(fields.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 2, 2]);
            assert_eq!(fields[0].bytes, b"churn");
            for row in &fields[1..] {
                let row: Vec<_> = Fields(row.bytes).collect();
                assert_eq!(row.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 1, 2]);
                first_keys.insert(row[0].bytes.to_vec());
                assert_eq!((row[1].bytes.len(), row[2].bytes.len()), (2, 12));
            }
        }
        assert_eq!(first_keys.len(), 500);
    }

    #[test]
    fn a_file_gives_its_messages_and_a_truncated_file_is_refused() {
        let content = b"\x02\0\0\0ab\x00\0\0\0\x01\0\0\0c".to_vec();
        let mut requests = Requests::from_file(content.clone(), 0).unwrap();
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let mut message = Vec::new();
            requests.write(&mut message);
            seen.insert(message);
        }
        assert_eq!(seen, HashSet::from([b"ab".to_vec(), b"".to_vec(), b"c".to_vec()]));
        for end in [0, 3, 5, content.len() - 1] {
            assert!(message_ranges(&content[..end]).is_err(), "{end}");
        }
    }
}
