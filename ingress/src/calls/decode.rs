//! Decodes a PredictRequest: the checks of gateway/transport/decode.py, in its order and with its
//! messages.

use std::collections::HashSet;
use std::sync::Arc;

use crate::calls::checks::{check_finite, check_id, check_rows, check_text, find_shape};
use crate::calls::proto::{field_lengths, text, Field, FieldReader, Malformed, ReadResult};
use crate::calls::refusal::{code, Refusal};
use crate::calls::shape::{Call, ModelShape, ModelShapes, NameLimits};

/// A longer message is walked at its top level before it is parsed.
const PARSED_BYTES_MAX: usize = 256 * 1024;
/// Bounds on such a message: bytes of a row, and top-level fields.
const ROW_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 8_192;
const ROWS_FIELD: u64 = 2;

/// Where the values of a row begin in the lists of `ParsedRequest`.
#[derive(Clone, Copy, Default)]
struct RowStart {
    keys: usize,
    inputs: usize,
    numbers: usize,
    categories: usize,
}

/// A parsed PredictRequest, which borrows its texts from the message. The values of all rows lie in
/// common lists, so that a row costs no allocation.
#[derive(Default)]
struct ParsedRequest<'a> {
    model: &'a str,
    version: &'a str,
    sticky: &'a str,
    request_id: &'a str,
    contract: u64,
    criticality: i32,
    rows: Vec<RowStart>,
    keys: Vec<&'a str>,
    /// Little-endian float32.
    inputs: Vec<u8>,
    /// Inputs by name that are numbers.
    numbers: Vec<(&'a str, f32)>,
    /// Inputs by name that are categories.
    categories: Vec<(&'a str, &'a str)>,
}

/// The result of decoding one message.
pub struct Decoded {
    /// The call, or why it is refused.
    pub call: Result<Call, Refusal>,
    /// The name of the model if the call is refused, as far as it could be read.
    pub model: String,
    /// The request id if the call is refused, as far as it could be read.
    pub request_id: String,
}

/// Decode one PredictRequest. Names are copied only if the call is refused.
pub fn decode_predict(message: &[u8], shapes: &ModelShapes, limits: &NameLimits) -> Decoded {
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
    let mut parsed = ParsedRequest::default();
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

/// Refuse a large message with too many fields or too large a row, before it is parsed.
fn check_sizes(message: &[u8]) -> Result<(), Refusal> {
    let reason = match field_lengths(message, ROWS_FIELD, FIELDS_MAX) {
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
    Err(Refusal::new(code::RESOURCE_EXHAUSTED, reason))
}

/// Parse the message into lists.
fn parse<'a>(message: &'a [u8], parsed: &mut ParsedRequest<'a>) -> ReadResult<()> {
    let mut fields = FieldReader::new(message, 0);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => parsed.model = text(bytes)?,
            Field::Bytes(2, bytes) => {
                parsed.rows.push(RowStart {
                    keys: parsed.keys.len(),
                    inputs: parsed.inputs.len(),
                    numbers: parsed.numbers.len(),
                    categories: parsed.categories.len(),
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

/// Parse a row, and append its values to the lists.
fn parse_row<'a>(row: &'a [u8], parsed: &mut ParsedRequest<'a>) -> ReadResult<()> {
    let mut fields = FieldReader::new(row, 1);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => parsed.keys.push(text(bytes)?),
            Field::Bytes(2, packed) => {
                if packed.len() % 4 != 0 {
                    return Err(Malformed);
                }
                parsed.inputs.extend_from_slice(packed);
            }
            Field::Fixed32(2, value) => parsed.inputs.extend_from_slice(&value.to_le_bytes()),
            Field::Bytes(3, entry) => parsed.numbers.push(number_entry(entry)?),
            Field::Bytes(4, entry) => parsed.categories.push(category_entry(entry)?),
            _ => {}
        }
    }
    Ok(())
}

/// An entry of the map from input name to number.
fn number_entry(entry: &[u8]) -> ReadResult<(&str, f32)> {
    let (mut name, mut value) = ("", 0.0);
    let mut fields = FieldReader::new(entry, 2);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => name = text(bytes)?,
            Field::Fixed32(2, bits) => value = f32::from_bits(bits),
            _ => {}
        }
    }
    Ok((name, value))
}

/// An entry of the map from input name to category.
fn category_entry(entry: &[u8]) -> ReadResult<(&str, &str)> {
    let (mut name, mut value) = ("", "");
    let mut fields = FieldReader::new(entry, 2);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => name = text(bytes)?,
            Field::Bytes(2, bytes) => value = text(bytes)?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// Check a parsed request in the order of gateway/transport/decode.py, and lay the call out.
fn check(
    parsed: &ParsedRequest<'_>,
    shapes: &ModelShapes,
    limits: &NameLimits,
) -> Result<Call, Refusal> {
    // The model, the rows, the input contract.
    let shape = find_shape(parsed.model, shapes)?;
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
    // Lay out the inputs, in one block that is large enough for the whole call.
    let id_bytes: usize = parsed.keys.iter().map(|key| key.len() + 1).sum();
    let text_bytes = parsed.sticky.len() + parsed.request_id.len() + parsed.version.len();
    let input_bytes = parsed.rows.len() * shape.width() * 4;
    let mut block = Vec::with_capacity(input_bytes + id_bytes + text_bytes);
    fill_inputs(parsed, shape, &mut block)?;
    check_finite(&block, shape)?;
    // Check the texts, and lay out ids and texts.
    check_text("sticky_key", parsed.sticky, limits.name_bytes_max)?;
    check_text("request_id", parsed.request_id, limits.request_id_bytes_max)?;
    check_text("version", parsed.version, limits.name_bytes_max)?;
    fill_ids(parsed, shape, &mut block)?;
    for text in [parsed.sticky, parsed.request_id, parsed.version] {
        block.extend_from_slice(text.as_bytes());
    }
    let known = (0..=3).contains(&parsed.criticality);
    Ok(Call {
        shape: Arc::clone(shape),
        rows: parsed.rows.len() as u32,
        criticality: if known { parsed.criticality as u8 } else { 0 },
        sticky: parsed.sticky.len() as u16,
        request_id: parsed.request_id.len() as u16,
        pin: parsed.version.len() as u16,
        any_version: false,
        block,
    })
}

impl<'a> ParsedRequest<'a> {
    /// Where row `index` and the next row begin.
    fn bounds(&self, index: usize) -> (RowStart, RowStart) {
        let end = RowStart {
            keys: self.keys.len(),
            inputs: self.inputs.len(),
            numbers: self.numbers.len(),
            categories: self.categories.len(),
        };
        (self.rows[index], self.rows.get(index + 1).copied().unwrap_or(end))
    }
}

/// Append the inputs of every row: as sent, or by name.
fn fill_inputs(
    parsed: &ParsedRequest<'_>,
    shape: &ModelShape,
    block: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let width = shape.width();
    for index in 0..parsed.rows.len() {
        let (start, next) = parsed.bounds(index);
        let inputs = &parsed.inputs[start.inputs..next.inputs];
        // The ordinary row has all its inputs in order.
        let named = start.numbers < next.numbers || start.categories < next.categories;
        if !named && inputs.len() == 4 * width {
            block.extend_from_slice(inputs);
            continue;
        }
        // Other rows have the wrong number of inputs, or name them.
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
        let numbers = &parsed.numbers[start.numbers..next.numbers];
        let categories = &parsed.categories[start.categories..next.categories];
        fill_named(index, numbers, categories, shape, block)?;
    }
    Ok(())
}

/// Append the inputs of a row that names them. Inputs that are left out take their defaults.
fn fill_named(
    index: usize,
    numbers: &[(&str, f32)],
    categories: &[(&str, &str)],
    shape: &ModelShape,
    block: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let index_of = |name: &str| shape.input_indexes.get(name.as_bytes()).copied();
    // Refuse names that the model does not have.
    let unknown = |name: &&str| index_of(name).is_none();
    let unknown_numbers: Vec<&str> =
        numbers.iter().map(|(name, _)| *name).filter(unknown).collect();
    let unknown_texts: Vec<&str> =
        categories.iter().map(|(name, _)| *name).filter(unknown).collect();
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
    // Numbers.
    let mut values = shape.input_defaults.clone();
    let mut is_number = vec![false; values.len()];
    for (name, value) in numbers {
        let input = index_of(name).unwrap_or_default();
        values[input] = *value;
        is_number[input] = true;
    }
    // Categories. One that is not in the dictionary has the code behind the last one.
    for (name, category) in categories {
        let input = index_of(name).unwrap_or_default();
        let dictionary = &shape.dictionaries[input];
        if dictionary.is_empty() || is_number[input] {
            return Err(Refusal::invalid(format!(
                "row {index}: input {} is sent as text, and is {}",
                shape.input_reprs[input],
                if dictionary.is_empty() { "no category" } else { "sent as a number too" }
            )));
        }
        let other = dictionary.len() as f32;
        values[input] = dictionary.get(category.as_bytes()).copied().unwrap_or(other);
    }
    for value in values {
        block.extend_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

/// Append the length of every entity id, then the ids.
fn fill_ids(
    parsed: &ParsedRequest<'_>,
    shape: &ModelShape,
    block: &mut Vec<u8>,
) -> Result<(), Refusal> {
    for index in 0..parsed.rows.len() {
        let (start, next) = parsed.bounds(index);
        let keys = &parsed.keys[start.keys..next.keys];
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
