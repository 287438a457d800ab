//! The messages that are asked: PredictRequest made anew for each call, or bytes from a file.

use crate::order::{Draw, Order, Random};

/// A kind of key: `S#######:100000` is S0000000 to S0099999.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyPattern {
    before: String,
    digits: usize,
    after: String,
    pub count: u64,
}

impl KeyPattern {
    /// Read `TEXT###TEXT:COUNT`.
    pub fn parse(text: &str) -> Result<KeyPattern, String> {
        let wrong = |why: &str| format!("key {text:?}: {why}; write S#######:100000");
        let (pattern, count) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("has no :COUNT"))?;
        let count: u64 = count.parse().map_err(|_| wrong("its COUNT is no number"))?;
        let first = pattern.find('#').ok_or_else(|| wrong("has no #"))?;
        let digits = pattern[first..]
            .bytes()
            .take_while(|&byte| byte == b'#')
            .count();
        let after = &pattern[first + digits..];
        if count == 0 || digits > 18 || after.contains('#') {
            return Err(wrong("needs a count above 0 and one run of up to 18 #"));
        }
        if count > 10u64.pow(digits as u32) {
            return Err(wrong(&format!("{digits} digits do not name {count} keys")));
        }
        Ok(KeyPattern {
            before: pattern[..first].into(),
            digits,
            after: after.into(),
            count,
        })
    }

    /// Append field 1 of a Row.
    #[inline]
    fn write(&self, mut number: u64, out: &mut Vec<u8>) {
        out.push(0x0a);
        varint(
            out,
            (self.before.len() + self.digits + self.after.len()) as u64,
        );
        out.extend_from_slice(self.before.as_bytes());
        let start = out.len();
        out.resize(start + self.digits, b'0');
        for place in out[start..].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        out.extend_from_slice(self.after.as_bytes());
    }
}

/// What a made message holds.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    pub model: String,
    pub version: String,
    pub criticality: u8,
    pub rows: usize,
    pub keys: Vec<KeyPattern>,
    /// Numbers by position in each row, drawn from the normal distribution.
    pub inputs: usize,
    /// (name, low, high): numbers by name, any between as likely.
    pub named: Vec<(String, f32, f32)>,
    /// (name, words): one of the words, any as likely.
    pub texts: Vec<(String, Vec<String>)>,
}

/// Where messages come from.
pub enum Source {
    Made(Recipe),
    /// Whole messages, each with its length before it (u32, little-endian).
    File(Vec<u8>),
}

enum Maker {
    Made {
        recipe: Recipe,
        before: Vec<u8>,
        after: Vec<u8>,
        normals: Vec<u8>,
    },
    Kept {
        content: Vec<u8>,
        places: Vec<(usize, usize)>,
    },
}

/// Makes one message after another.
pub struct Bodies {
    maker: Maker,
    draw: Draw,
    random: Random,
    row: Vec<u8>,
}

const NORMALS: usize = 4_096;

impl Bodies {
    /// One of *step* that share the work: it begins at *first* and takes every *step*-th.
    pub fn new(
        source: Source,
        order: Order,
        seed: u64,
        first: u64,
        step: u64,
    ) -> Result<Bodies, String> {
        let mut random = Random::new(seed ^ (first + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let (maker, count) = match source {
            Source::Made(recipe) => {
                let count = recipe.keys.first().map_or(1, |pattern| pattern.count);
                (made(recipe, &mut random), count)
            }
            Source::File(content) => {
                let places = places(&content)?;
                let count = places.len() as u64;
                (Maker::Kept { content, places }, count)
            }
        };
        Ok(Bodies {
            maker,
            draw: Draw::new(order, count, first, step),
            random,
            row: Vec::new(),
        })
    }

    /// Append one message.
    #[inline]
    pub fn write(&mut self, out: &mut Vec<u8>) {
        match &self.maker {
            Maker::Kept { content, places } => {
                let (start, end) = places[self.draw.next(&mut self.random) as usize];
                out.extend_from_slice(&content[start..end]);
            }
            Maker::Made {
                recipe,
                before,
                after,
                normals,
            } => {
                out.extend_from_slice(before);
                for _ in 0..recipe.rows {
                    self.row.clear();
                    write_row(
                        recipe,
                        normals,
                        &mut self.draw,
                        &mut self.random,
                        &mut self.row,
                    );
                    out.push(0x12);
                    varint(out, self.row.len() as u64);
                    out.extend_from_slice(&self.row);
                }
                out.extend_from_slice(after);
            }
        }
    }
}

fn made(recipe: Recipe, random: &mut Random) -> Maker {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    text(&mut before, 1, &recipe.model);
    if !recipe.version.is_empty() {
        text(&mut after, 3, &recipe.version);
    }
    if recipe.criticality != 0 {
        after.extend_from_slice(&[7 << 3, recipe.criticality]);
    }
    let normals = (0..NORMALS + recipe.inputs)
        .flat_map(|_| (random.normal() as f32).to_le_bytes())
        .collect();
    Maker::Made {
        recipe,
        before,
        after,
        normals,
    }
}

fn places(content: &[u8]) -> Result<Vec<(usize, usize)>, String> {
    let (mut places, mut at) = (Vec::new(), 0);
    while let Some(length) = content[at..].first_chunk::<4>() {
        let start = at + 4;
        at = start + u32::from_le_bytes(*length) as usize;
        if at > content.len() {
            return Err(format!(
                "the file of messages ends {} bytes early",
                at - content.len()
            ));
        }
        places.push((start, at));
    }
    if places.is_empty() || at != content.len() {
        return Err("the file of messages is empty or ends in the middle of a length".into());
    }
    Ok(places)
}

fn write_row(
    recipe: &Recipe,
    normals: &[u8],
    draw: &mut Draw,
    random: &mut Random,
    out: &mut Vec<u8>,
) {
    for (place, pattern) in recipe.keys.iter().enumerate() {
        let number = if place == 0 {
            draw.next(random)
        } else {
            random.below(pattern.count)
        };
        pattern.write(number, out);
    }
    if recipe.inputs > 0 {
        let start = random.below(NORMALS as u64) as usize * 4;
        out.push(0x12);
        varint(out, recipe.inputs as u64 * 4);
        out.extend_from_slice(&normals[start..start + recipe.inputs * 4]);
    }
    for (name, low, high) in &recipe.named {
        out.push(0x1a);
        varint(out, text_bytes(name) + 5);
        text(out, 1, name);
        out.push(0x15);
        out.extend_from_slice(&(low + (high - low) * random.unit() as f32).to_le_bytes());
    }
    for (name, words) in &recipe.texts {
        let word = &words[random.below(words.len() as u64) as usize];
        out.push(0x22);
        varint(out, text_bytes(name) + text_bytes(word));
        text(out, 1, name);
        text(out, 2, word);
    }
}

fn text(out: &mut Vec<u8>, field: u8, words: &str) {
    out.push(field << 3 | 2);
    varint(out, words.len() as u64);
    out.extend_from_slice(words.as_bytes());
}

/// What `text` appends.
fn text_bytes(words: &str) -> u64 {
    let length = words.len() as u64;
    let digits = u64::from((u64::BITS - length.max(1).leading_zeros()).div_ceil(7));
    1 + digits + length
}

/// Append a protobuf varint.
#[inline]
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replies::fields;
    use std::collections::HashSet;

    #[test]
    fn keys_are_numbered_and_padded() {
        let pattern = KeyPattern::parse("S-###x:1000").unwrap();
        let mut out = Vec::new();
        pattern.write(42, &mut out);
        assert_eq!(out, b"\x0a\x06S-042x");
    }

    #[test]
    fn a_wrong_pattern_says_why() {
        for text in ["S###", "S:10", "S#:11", "S#:0", "S#a#:5"] {
            let said = KeyPattern::parse(text).unwrap_err();
            assert!(said.contains("S#######:100000"), "{said}");
        }
    }

    #[test]
    fn a_made_message_is_a_predict_request() {
        let recipe = Recipe {
            model: "churn".into(),
            version: "7".into(),
            criticality: 3,
            rows: 2,
            keys: vec![KeyPattern::parse("S###:500").unwrap()],
            inputs: 3,
            named: vec![("age".into(), 18.0, 90.0)],
            texts: vec![("plan".into(), vec!["basic".into(), "premium".into()])],
        };
        let source = Source::Made(recipe);
        let mut bodies = Bodies::new(source, Order::Distinct, 1, 0, 1).unwrap();
        let mut keys = HashSet::new();
        for _ in 0..250 {
            let mut message = Vec::new();
            bodies.write(&mut message);
            let top: Vec<_> = fields(&message).collect();
            let numbers: Vec<u32> = top.iter().map(|field| field.number).collect();
            assert_eq!(numbers, [1, 2, 2, 3, 7]);
            assert_eq!(top[0].bytes, b"churn");
            for row in &top[1..3] {
                let row: Vec<_> = fields(row.bytes).collect();
                assert_eq!(
                    row.iter().map(|f| f.number).collect::<Vec<_>>(),
                    [1, 2, 3, 4]
                );
                keys.insert(row[0].bytes.to_vec());
                assert_eq!(row[1].bytes.len(), 12);
                let age = &fields(row[2].bytes).nth(1).unwrap();
                assert!((18.0..90.0).contains(&f32::from_bits(age.value as u32)));
                assert_eq!(fields(row[2].bytes).next().unwrap().bytes, b"age");
                assert_eq!(fields(row[3].bytes).next().unwrap().bytes, b"plan");
            }
        }
        assert_eq!(keys.len(), 500);
    }

    #[test]
    fn a_file_gives_its_messages_and_is_checked() {
        let content = b"\x02\0\0\0ab\x00\0\0\0\x01\0\0\0c".to_vec();
        let mut bodies =
            Bodies::new(Source::File(content.clone()), Order::Distinct, 1, 0, 1).unwrap();
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let mut message = Vec::new();
            bodies.write(&mut message);
            seen.insert(message);
        }
        assert_eq!(
            seen,
            HashSet::from([b"ab".to_vec(), b"".to_vec(), b"c".to_vec()])
        );
        for cut in [0, 3, 5, content.len() - 1] {
            assert!(places(&content[..cut]).is_err(), "{cut}");
        }
    }
}
