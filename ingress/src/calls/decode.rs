//! A PredictRequest's bytes to a call: every check of gateway/decode.py, in its order and words.

use std::collections::HashSet;
use std::sync::Arc;

use crate::calls::proto::{field_lengths, text, Field, Fields, Malformed, Read};
use crate::calls::shape::{
    check_finite, check_id, check_rows, check_text, code, shape_of, Call, NameLimits, Refusal,
    Shape, Shapes,
};

const PARSED_BYTES_MAX: usize = 256 * 1024;
const ROW_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 8_192;
const ROWS_FIELD: u64 = 2;

/// Where a row's values begin in the lists of `Parsed`.
#[derive(Clone, Copy, Default)]
struct RowStart {
    keys: usize,
    inputs: usize,
    named: usize,
    texts: usize,
}

/// A PredictRequest, borrowed from its bytes.
#[derive(Default)]
struct Parsed<'a> {
    model: &'a str,
    version: &'a str,
    sticky: &'a str,
    request_id: &'a str,
    contract: u64,
    criticality: i32,
    rows: Vec<RowStart>,
    keys: Vec<&'a str>,
    /// Packed pieces, four bytes a value.
    inputs: Vec<u8>,
    named: Vec<(&'a str, f32)>,
    texts: Vec<(&'a str, &'a str)>,
}

/// What came of one message: the call, or why not, and whose it was.
pub struct Decoded {
    /// The call, or the words for it.
    pub call: Result<Call, Refusal>,
    /// The model it named, where that could be read.
    pub model: String,
    /// The request id, where it could be read.
    pub request_id: String,
}

/// Decode one message. Only a refused one costs the copies of its names.
pub fn decode(message: &[u8], shapes: &Shapes, limits: &NameLimits) -> Decoded {
    let refused = |refusal| Decoded {
        call: Err(refusal),
        model: String::new(),
        request_id: String::new(),
    };
    if message.len() > PARSED_BYTES_MAX {
        if let Err(refusal) = check_sizes(message) {
            return refused(refusal);
        }
    }
    let mut parsed = Parsed::default();
    if parse(message, &mut parsed).is_err() {
        return refused(Refusal::invalid(format!(
            "{} bytes are not a turnout.v1.PredictRequest; names and ids are UTF-8",
            message.len()
        )));
    }
    let call = check(&parsed, shapes, limits);
    let (model, request_id) = match &call {
        Ok(_) => (String::new(), String::new()),
        Err(_) => (parsed.model.to_owned(), parsed.request_id.to_owned()),
    };
    Decoded {
        call,
        model,
        request_id,
    }
}

/// Look at a large message before parsing it.
fn check_sizes(message: &[u8]) -> Result<(), Refusal> {
    let words = match field_lengths(message, ROWS_FIELD, FIELDS_MAX) {
        Ok(lengths) => {
            let longest = lengths.into_iter().max().unwrap_or(0);
            if longest <= ROW_BYTES_MAX {
                return Ok(());
            }
            format!("a row of {longest} bytes; at most {ROW_BYTES_MAX} are taken")
        }
        Err(error) => {
            let length = message.len();
            format!("{length} bytes that are no PredictRequest, or one of too many rows: {error}")
        }
    };
    Err(Refusal::new(code::RESOURCE_EXHAUSTED, words))
}

fn parse<'a>(message: &'a [u8], parsed: &mut Parsed<'a>) -> Read<()> {
    let mut fields = Fields::of(message, 0);
    while let Some(field) = fields.step()? {
        match field {
            Field::Bytes(1, bytes) => parsed.model = text(bytes)?,
            Field::Bytes(2, bytes) => {
                parsed.rows.push(RowStart {
                    keys: parsed.keys.len(),
                    inputs: parsed.inputs.len(),
                    named: parsed.named.len(),
                    texts: parsed.texts.len(),
                });
                parse_row(bytes, parsed)?;
            }
            Field::Bytes(3, bytes) => parsed.version = text(bytes)?,
            Field::Bytes(4, bytes) => parsed.sticky = text(bytes)?,
            Field::Fixed64(5, value) => parsed.contract = value,
            Field::Bytes(6, bytes) => parsed.request_id = text(bytes)?,
            Field::Varint(7, value) => parsed.criticality = value as i32,
            _ => {}
        }
    }
    Ok(())
}

fn parse_row<'a>(row: &'a [u8], parsed: &mut Parsed<'a>) -> Read<()> {
    let mut fields = Fields::of(row, 1);
    while let Some(field) = fields.step()? {
        match field {
            Field::Bytes(1, bytes) => parsed.keys.push(text(bytes)?),
            Field::Bytes(2, packed) => {
                if packed.len() % 4 != 0 {
                    return Err(Malformed);
                }
                parsed.inputs.extend_from_slice(packed);
            }
            Field::Fixed32(2, value) => parsed.inputs.extend_from_slice(&value.to_le_bytes()),
            Field::Bytes(3, entry) => parsed.named.push(number_entry(entry)?),
            Field::Bytes(4, entry) => parsed.texts.push(text_entry(entry)?),
            _ => {}
        }
    }
    Ok(())
}

fn number_entry(entry: &[u8]) -> Read<(&str, f32)> {
    let (mut name, mut value) = ("", 0.0);
    let mut fields = Fields::of(entry, 2);
    while let Some(field) = fields.step()? {
        match field {
            Field::Bytes(1, bytes) => name = text(bytes)?,
            Field::Fixed32(2, bits) => value = f32::from_bits(bits),
            _ => {}
        }
    }
    Ok((name, value))
}

fn text_entry(entry: &[u8]) -> Read<(&str, &str)> {
    let (mut name, mut value) = ("", "");
    let mut fields = Fields::of(entry, 2);
    while let Some(field) = fields.step()? {
        match field {
            Field::Bytes(1, bytes) => name = text(bytes)?,
            Field::Bytes(2, bytes) => value = text(bytes)?,
            _ => {}
        }
    }
    Ok((name, value))
}

fn check(parsed: &Parsed<'_>, shapes: &Shapes, limits: &NameLimits) -> Result<Call, Refusal> {
    let shape = shape_of(parsed.model, shapes)?;
    check_rows(parsed.rows.len(), shape)?;
    if parsed.contract != 0 && parsed.contract != shape.contract {
        return Err(Refusal::new(
            code::FAILED_PRECONDITION,
            format!(
                "the call was made for input contract {:#018x}; model '{}' has {:#018x}; ask \
                 DescribeModel and adapt",
                parsed.contract, shape.model, shape.contract
            ),
        ));
    }
    let ids: usize = parsed.keys.iter().map(|key| key.len() + 1).sum();
    let texts = parsed.sticky.len() + parsed.request_id.len() + parsed.version.len();
    let inputs = parsed.rows.len() * shape.width() * 4;
    let mut block = Vec::with_capacity(inputs + ids + texts);
    fill_inputs(parsed, shape, &mut block)?;
    check_finite(&block, shape)?;
    check_text("sticky_key", parsed.sticky, limits.name_bytes_max)?;
    check_text("request_id", parsed.request_id, limits.request_id_bytes_max)?;
    check_text("version", parsed.version, limits.name_bytes_max)?;
    fill_ids(parsed, shape, &mut block)?;
    for part in [parsed.sticky, parsed.request_id, parsed.version] {
        block.extend_from_slice(part.as_bytes());
    }
    let known = (0..=3).contains(&parsed.criticality);
    Ok(Call {
        shape: Arc::clone(shape),
        rows: parsed.rows.len() as u32,
        criticality: if known { parsed.criticality as u8 } else { 0 },
        sticky: parsed.sticky.len() as u16,
        request_id: parsed.request_id.len() as u16,
        pin: parsed.version.len() as u16,
        block,
    })
}

impl<'a> Parsed<'a> {
    /// Where row `index` and the one behind it begin.
    fn bounds(&self, index: usize) -> (RowStart, RowStart) {
        let end = RowStart {
            keys: self.keys.len(),
            inputs: self.inputs.len(),
            named: self.named.len(),
            texts: self.texts.len(),
        };
        (self.rows[index], self.rows.get(index + 1).copied().unwrap_or(end))
    }
}

fn fill_inputs(parsed: &Parsed<'_>, shape: &Shape, block: &mut Vec<u8>) -> Result<(), Refusal> {
    let width = shape.width();
    for index in 0..parsed.rows.len() {
        let (at, next) = parsed.bounds(index);
        let inputs = &parsed.inputs[at.inputs..next.inputs];
        let named = at.named < next.named || at.texts < next.texts;
        if !named && inputs.len() == 4 * width {
            block.extend_from_slice(inputs);
            continue;
        }
        if !named {
            return Err(Refusal::invalid(format!(
                "row {index} has {} inputs; model '{}' takes {width}",
                inputs.len() / 4,
                shape.model
            )));
        }
        if !inputs.is_empty() {
            return Err(Refusal::invalid(format!(
                "row {index} has both inputs and named ones; send one kind"
            )));
        }
        let numbers = &parsed.named[at.named..next.named];
        let texts = &parsed.texts[at.texts..next.texts];
        fill_named(index, numbers, texts, shape, block)?;
    }
    Ok(())
}

/// One row's inputs by name; those left out take their defaults.
fn fill_named(
    index: usize,
    numbers: &[(&str, f32)],
    texts: &[(&str, &str)],
    shape: &Shape,
    block: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let index_of = |name: &str| shape.input_indexes.get(name.as_bytes()).copied();
    let strange = |name: &&str| index_of(name).is_none();
    let unknown_numbers: Vec<&str> =
        numbers.iter().map(|(name, _)| *name).filter(strange).collect();
    let unknown_texts: Vec<&str> = texts.iter().map(|(name, _)| *name).filter(strange).collect();
    if let Some(first) = unknown_numbers.first().or(unknown_texts.first()) {
        let distinct = |names: &[&str]| names.iter().collect::<HashSet<_>>().len();
        return Err(Refusal::invalid(format!(
            "row {index} names {} inputs that model '{}' does not have, the first {} bytes long; \
             it has {}",
            distinct(&unknown_numbers) + distinct(&unknown_texts),
            shape.model,
            first.len(),
            shape.inputs_repr
        )));
    }
    let mut values = shape.input_defaults.clone();
    let mut numbered = vec![false; values.len()];
    for (name, value) in numbers {
        let place = index_of(name).unwrap_or_default();
        values[place] = *value;
        numbered[place] = true;
    }
    for (name, category) in texts {
        let place = index_of(name).unwrap_or_default();
        let dictionary = &shape.dictionaries[place];
        if dictionary.is_empty() || numbered[place] {
            return Err(Refusal::invalid(format!(
                "row {index}: input {} is sent as text, and is {}",
                shape.input_reprs[place],
                if dictionary.is_empty() { "no category" } else { "sent as a number too" }
            )));
        }
        let unknown = dictionary.len() as f32;
        values[place] = dictionary.get(category.as_bytes()).copied().unwrap_or(unknown);
    }
    for value in values {
        block.extend_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

/// Id lengths, then ids, once each is one.
fn fill_ids(parsed: &Parsed<'_>, shape: &Shape, block: &mut Vec<u8>) -> Result<(), Refusal> {
    for index in 0..parsed.rows.len() {
        let (at, next) = parsed.bounds(index);
        let keys = &parsed.keys[at.keys..next.keys];
        if keys.len() != shape.entities {
            return Err(Refusal::invalid(format!(
                "row {index} has {} keys; model '{}' takes {}, in the order DescribeModel gives",
                keys.len(),
                shape.model,
                shape.entities
            )));
        }
        for key in keys {
            check_id(key).map_err(|why| Refusal::invalid(format!("row {index}: {why}")))?;
            block.push(key.len() as u8);
        }
    }
    for key in &parsed.keys {
        block.extend_from_slice(key.as_bytes());
    }
    Ok(())
}
