//! Decodes a ModelInferRequest of the Open Inference Protocol: the checks of
//! gateway/transport/open_inference.py, in its order and with its messages.

use std::borrow::Cow;
use std::sync::Arc;

use crate::calls::checks::{check_finite, check_id, check_rows, check_text, find_shape};
use crate::calls::decode::Decoded;
use crate::calls::proto::{field_lengths, text, varint, Field, FieldReader, Malformed, ReadResult};
use crate::calls::refusal::Refusal;
use crate::calls::shape::{Call, ModelShape, ModelShapes, NameLimits};

const KEYS: &str = "keys";
const INPUTS: &str = "inputs";
const SCORES: &str = "scores";
/// The field number of raw_input_contents, and a bound on the top-level fields of a large message.
const RAW_FIELD: u64 = 7;
const FIELDS_MAX: usize = 64;
/// Larger sizes of a tensor are not rows.
const ROWS_MAX: i64 = (1 << 31) - 1;
/// Characters of an unknown name that a message repeats.
const NAME_SHOWN_MAX: usize = 40;
/// The fields of InferTensorContents, by field number from 1.
const CONTENTS: [&str; 8] = [
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
];

/// A parsed input tensor.
#[derive(Default)]
struct Tensor<'a> {
    name: &'a str,
    datatype: &'a str,
    /// The first three sizes. `dimensions` counts all of them.
    shape: Vec<i64>,
    dimensions: usize,
    /// Names of its parameters.
    parameters: Vec<&'a str>,
    /// Which of CONTENTS have a value.
    filled: [bool; 8],
    /// fp32_contents, little-endian.
    floats: Vec<u8>,
    /// bytes_contents.
    items: Vec<&'a [u8]>,
}

/// A parsed ModelInferRequest, which borrows from the message.
#[derive(Default)]
struct ParsedRequest<'a> {
    model: &'a str,
    version: &'a str,
    id: &'a str,
    /// (name, text). None: the parameter is not a text.
    parameters: Vec<(&'a str, Option<&'a str>)>,
    inputs: Vec<Tensor<'a>>,
    /// (name, names of its parameters).
    outputs: Vec<(&'a str, Vec<&'a str>)>,
    /// raw_input_contents.
    raw: Vec<&'a [u8]>,
}

/// The result of decoding one message, and how its reply is written.
pub struct DecodedInfer {
    /// The call, or why it is refused.
    pub decoded: Decoded,
    /// The request's `id`, which the reply repeats.
    pub id: Vec<u8>,
    /// The tensors were sent raw, so the scores are sent raw too.
    pub raw: bool,
}

/// Decode one ModelInferRequest.
pub fn decode_infer(message: &[u8], shapes: &ModelShapes, limits: &NameLimits) -> DecodedInfer {
    let mut parsed = ParsedRequest::default();
    let call = check_sizes(message, limits.typed_contents_bytes_max)
        .and_then(|()| {
            parse(message, &mut parsed).map_err(|_| {
                Refusal::invalid(format!(
                    "{} bytes are not an inference.ModelInferRequest; names are UTF-8",
                    message.len()
                ))
            })
        })
        .and_then(|()| check(&parsed, shapes, limits));
    let model = if call.is_err() { parsed.model.to_owned() } else { String::new() };
    DecodedInfer {
        decoded: Decoded {
            call,
            model,
            request_id: String::new(),
        },
        id: parsed.id.as_bytes().to_vec(),
        raw: !parsed.raw.is_empty(),
    }
}

/// Refuse a message with too many bytes outside raw_input_contents, before it is parsed.
fn check_sizes(message: &[u8], typed_contents_bytes_max: usize) -> Result<(), Refusal> {
    if message.len() <= typed_contents_bytes_max {
        return Ok(());
    }
    match field_lengths(message, RAW_FIELD, FIELDS_MAX) {
        Ok(lengths) => {
            let beside = message.len() - lengths.into_iter().sum::<usize>();
            if beside > typed_contents_bytes_max {
                return Err(Refusal::invalid(format!(
                    "{beside} bytes of the message are outside raw_input_contents; typed contents \
                     are taken up to {typed_contents_bytes_max} (typed_contents_bytes_max): send \
                     the tensors raw"
                )));
            }
            Ok(())
        }
        Err(_) => Err(Refusal::invalid(format!(
            "{} bytes are not an inference.ModelInferRequest; names are UTF-8",
            message.len()
        ))),
    }
}

fn parse<'a>(message: &'a [u8], parsed: &mut ParsedRequest<'a>) -> ReadResult<()> {
    let mut fields = FieldReader::new(message, 0);
    while let Some(field) = fields.next_field()? {
        let Field::Bytes(number, bytes) = field else {
            continue;
        };
        match number {
            1 => parsed.model = text(bytes)?,
            2 => parsed.version = text(bytes)?,
            3 => parsed.id = text(bytes)?,
            4 => {
                let (name, value) = parameter_entry(bytes, 1)?;
                let known = parsed.parameters.iter().position(|(known, _)| *known == name);
                match known {
                    Some(at) => parsed.parameters[at].1 = value,
                    // Two parameters are known. Of more, it is enough to see that there are some.
                    None if parsed.parameters.len() < 16 => parsed.parameters.push((name, value)),
                    None => {}
                }
            }
            5 => parsed.inputs.push(tensor(bytes)?),
            6 => parsed.outputs.push(output(bytes)?),
            7 => parsed.raw.push(bytes),
            _ => {}
        }
    }
    Ok(())
}

fn tensor(message: &[u8]) -> ReadResult<Tensor<'_>> {
    let mut tensor = Tensor::default();
    let mut fields = FieldReader::new(message, 1);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => tensor.name = text(bytes)?,
            Field::Bytes(2, bytes) => tensor.datatype = text(bytes)?,
            Field::Bytes(3, packed) => numbers(packed, |value| tensor.add_size(value as i64))?,
            Field::Varint(3, value) => tensor.add_size(value as i64),
            Field::Bytes(4, bytes) => {
                let (name, _) = parameter_entry(bytes, 2)?;
                if !tensor.parameters.contains(&name) && tensor.parameters.len() < 64 {
                    tensor.parameters.push(name);
                }
            }
            Field::Bytes(5, bytes) => contents(bytes, &mut tensor)?,
            _ => {}
        }
    }
    Ok(tensor)
}

impl Tensor<'_> {
    fn add_size(&mut self, size: i64) {
        self.dimensions += 1;
        if self.shape.len() < 3 {
            self.shape.push(size);
        }
    }
}

/// Parse a tensor's InferTensorContents.
fn contents<'a>(message: &'a [u8], tensor: &mut Tensor<'a>) -> ReadResult<()> {
    let mut fields = FieldReader::new(message, 2);
    while let Some(field) = fields.next_field()? {
        match field {
            // Contents of other datatypes: it is enough to know that there are some.
            Field::Bytes(number @ 1..=5, packed) => {
                numbers(packed, |_| tensor.filled[number as usize - 1] = true)?;
            }
            Field::Varint(number @ 1..=5, _) => tensor.filled[number as usize - 1] = true,
            // fp32_contents and fp64_contents.
            Field::Bytes(number @ 6..=7, packed) => {
                let width = if number == 6 { 4 } else { 8 };
                if packed.len() % width != 0 {
                    return Err(Malformed);
                }
                tensor.filled[number as usize - 1] |= !packed.is_empty();
                if number == 6 {
                    tensor.floats.extend_from_slice(packed);
                }
            }
            Field::Fixed32(6, bits) => {
                tensor.filled[5] = true;
                tensor.floats.extend_from_slice(&bits.to_le_bytes());
            }
            Field::Fixed64(7, _) => tensor.filled[6] = true,
            Field::Bytes(8, item) => {
                tensor.filled[7] = true;
                tensor.items.push(item);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Read packed varints.
fn numbers(mut packed: &[u8], mut each: impl FnMut(u64)) -> ReadResult<()> {
    while !packed.is_empty() {
        let (value, length) = varint(packed)?;
        each(value);
        packed = &packed[length..];
    }
    Ok(())
}

/// Parse an InferRequestedOutputTensor to its name and the names of its parameters.
fn output(message: &[u8]) -> ReadResult<(&str, Vec<&str>)> {
    let (mut name, mut parameters) = ("", Vec::new());
    let mut fields = FieldReader::new(message, 1);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => name = text(bytes)?,
            Field::Bytes(2, bytes) => {
                let (name, _) = parameter_entry(bytes, 2)?;
                if !parameters.contains(&name) && parameters.len() < 64 {
                    parameters.push(name);
                }
            }
            _ => {}
        }
    }
    Ok((name, parameters))
}

/// An entry of a map of parameters: its name, and its text if it is one.
fn parameter_entry(entry: &[u8], depth: u32) -> ReadResult<(&str, Option<&str>)> {
    let (mut name, mut value) = ("", None);
    let mut fields = FieldReader::new(entry, depth);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => name = text(bytes)?,
            Field::Bytes(2, bytes) => value = parameter(bytes, depth + 1, value)?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// The text of an InferParameter. None: it is of another kind. `before` is the value that an earlier
/// piece of the same parameter had, since protobuf merges them.
fn parameter<'a>(
    message: &'a [u8],
    depth: u32,
    before: Option<&'a str>,
) -> ReadResult<Option<&'a str>> {
    let mut value = before;
    let mut fields = FieldReader::new(message, depth);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(3, bytes) => value = Some(text(bytes)?),
            Field::Varint(1 | 2 | 5, _) | Field::Fixed64(4, _) => value = None,
            _ => {}
        }
    }
    Ok(value)
}

/// Check a parsed request in the order of gateway/transport/open_inference.py, and lay the call out.
fn check(
    parsed: &ParsedRequest<'_>,
    shapes: &ModelShapes,
    limits: &NameLimits,
) -> Result<Call, Refusal> {
    // The model, the tensors and the number of rows.
    let shape = find_shape(parsed.model, shapes)?;
    check_outputs(parsed)?;
    let tensors = find_tensors(parsed, shape)?;
    let rows = row_count(parsed, &tensors, shape)?;
    check_rows(rows, shape)?;
    let raw = !parsed.raw.is_empty();
    let (mut lengths, mut ids, mut values): (Vec<u8>, Vec<u8>, Cow<'_, [u8]>) =
        (Vec::new(), Vec::new(), Cow::Borrowed(&[]));
    // The entity ids.
    if let Some(at) = tensors.keys {
        let count = rows * shape.entities;
        let read = if raw {
            Cow::Owned(raw_keys(parsed.raw[at], count)?)
        } else {
            Cow::Borrowed(&parsed.inputs[at].items)
        };
        check_count(KEYS, read.len(), count)?;
        for (index, key) in read.iter().enumerate() {
            let row = index / shape.entities;
            let refused =
                |why: &str| Refusal::invalid(format!("tensor '{KEYS}', row {row}: {why}"));
            let key = text(key).map_err(|_| refused("an entity id is not UTF-8"))?;
            check_id(key).map_err(|why| refused(&why))?;
            lengths.push(key.len() as u8);
            ids.extend_from_slice(key.as_bytes());
        }
    }
    // The request inputs.
    if let Some(at) = tensors.inputs {
        let count = rows * shape.width();
        let floats = if raw { parsed.raw[at] } else { &parsed.inputs[at].floats };
        if raw && floats.len() != 4 * count {
            return Err(Refusal::invalid(format!(
                "tensor '{INPUTS}' has {} raw bytes; its shape is {} of them",
                floats.len(),
                4 * count
            )));
        }
        check_count(INPUTS, floats.len() / 4, count)?;
        values = Cow::Borrowed(floats);
    }
    // The texts.
    let (sticky, request_id) = parameters(parsed)?;
    check_text("id", parsed.id, limits.request_id_bytes_max)?;
    let request_id = request_id.unwrap_or(parsed.id);
    check_text("sticky_key", sticky, limits.name_bytes_max)?;
    check_text("request_id", request_id, limits.request_id_bytes_max)?;
    check_text("model_version", parsed.version, limits.name_bytes_max)?;
    check_finite(&values, shape)?;
    // One block for the call.
    let mut block = values.into_owned();
    for bytes in [&lengths[..], &ids, sticky.as_bytes(), request_id.as_bytes()] {
        block.extend_from_slice(bytes);
    }
    block.extend_from_slice(parsed.version.as_bytes());
    Ok(Call {
        shape: Arc::clone(shape),
        rows: rows as u32,
        criticality: 0,
        sticky: sticky.len() as u16,
        request_id: request_id.len() as u16,
        pin: parsed.version.len() as u16,
        any_version: false,
        block,
    })
}

/// Refuse requested outputs other than `scores`.
fn check_outputs(parsed: &ParsedRequest<'_>) -> Result<(), Refusal> {
    for (index, (name, parameters)) in parsed.outputs.iter().enumerate() {
        if *name != SCORES {
            return Err(Refusal::invalid(format!(
                "output {} is unknown; there is one, '{SCORES}'",
                shown(name)
            )));
        }
        if index > 0 {
            let times = parsed.outputs.len();
            return Err(Refusal::invalid(format!("output '{SCORES}' is asked for {times} times")));
        }
        if !parameters.is_empty() {
            return Err(Refusal::invalid(format!(
                "output '{SCORES}' has {} parameters; none is known",
                parameters.len()
            )));
        }
    }
    Ok(())
}

/// The indexes of the known tensors in the request.
#[derive(Default)]
struct Tensors {
    keys: Option<usize>,
    inputs: Option<usize>,
    /// Both, in the order in which they were sent.
    order: Vec<usize>,
}

/// Find the known tensors. Refuse unknown, repeated and missing ones.
fn find_tensors(parsed: &ParsedRequest<'_>, shape: &ModelShape) -> Result<Tensors, Refusal> {
    // Raw contents have to be as many as the tensors.
    let raw = !parsed.raw.is_empty();
    if raw && parsed.raw.len() != parsed.inputs.len() {
        return Err(Refusal::invalid(format!(
            "raw_input_contents has {} items for {} tensors; send one a tensor, in their order",
            parsed.raw.len(),
            parsed.inputs.len()
        )));
    }
    // Find the tensors by their names.
    let mut tensors = Tensors::default();
    for (index, tensor) in parsed.inputs.iter().enumerate() {
        let name = tensor.name;
        let known = match name {
            KEYS if shape.entities > 0 => &mut tensors.keys,
            INPUTS if shape.width() > 0 => &mut tensors.inputs,
            _ => {
                return Err(Refusal::invalid(format!(
                    "tensor {} is none of model '{}'; it takes {}",
                    shown(name),
                    shape.model,
                    shape.tensors_repr
                )))
            }
        };
        if known.replace(index).is_some() {
            return Err(Refusal::invalid(format!("tensor '{name}' is sent twice")));
        }
        tensors.order.push(index);
        check_tensor(tensor, raw)?;
    }
    // Every tensor that the model takes has to be there.
    for (name, wanted, found) in
        [(KEYS, shape.entities > 0, tensors.keys), (INPUTS, shape.width() > 0, tensors.inputs)]
    {
        if wanted && found.is_none() {
            return Err(Refusal::invalid(format!(
                "tensor '{name}' is not sent; model '{}' takes {}",
                shape.model, shape.tensors_repr
            )));
        }
    }
    Ok(tensors)
}

/// Check the datatype of a tensor, and that its values lie where its datatype has them.
fn check_tensor(tensor: &Tensor<'_>, raw: bool) -> Result<(), Refusal> {
    let name = tensor.name;
    let (datatype, field) = if name == KEYS { ("BYTES", 7) } else { ("FP32", 5) };
    // The datatype, and no parameters.
    if tensor.datatype != datatype {
        return Err(Refusal::invalid(format!(
            "tensor '{name}' has datatype {}; it is {datatype}",
            shown(tensor.datatype)
        )));
    }
    if !tensor.parameters.is_empty() {
        let count = tensor.parameters.len();
        return Err(Refusal::invalid(format!(
            "tensor '{name}' has {count} parameters; none is known"
        )));
    }
    // Values in the field of the datatype only, or raw only.
    let mut filled = (0..8).filter(|contents| tensor.filled[*contents]);
    if raw {
        if let Some(first) = filled.next() {
            return Err(Refusal::invalid(format!(
                "tensor '{name}' has {} and raw_input_contents; send one kind",
                CONTENTS[first]
            )));
        }
    } else if let Some(other) = filled.find(|contents| *contents != field) {
        return Err(Refusal::invalid(format!(
            "tensor '{name}' has {}; {datatype} values go into {}",
            CONTENTS[other], CONTENTS[field]
        )));
    }
    Ok(())
}

/// The number of rows: the first size of every tensor.
fn row_count(
    parsed: &ParsedRequest<'_>,
    tensors: &Tensors,
    shape: &ModelShape,
) -> Result<usize, Refusal> {
    let mut rows: Option<i64> = None;
    for at in &tensors.order {
        let tensor = &parsed.inputs[*at];
        let name = tensor.name;
        let width = if name == KEYS { shape.entities } else { shape.width() };
        let sizes = &tensor.shape;
        let fits = tensor.dimensions == 2
            && sizes[1] == width as i64
            && (0..=ROWS_MAX).contains(&sizes[0]);
        if !fits {
            return Err(Refusal::invalid(format!(
                "tensor '{name}' has {} dimensions, the first of them {sizes:?}; model '{}' takes \
                 [rows, {width}]",
                tensor.dimensions, shape.model
            )));
        }
        if let Some(before) = rows {
            if before != sizes[0] {
                return Err(Refusal::invalid(format!(
                    "tensor '{name}' has {} rows, the one before it {before}",
                    sizes[0]
                )));
            }
        }
        rows = Some(sizes[0]);
    }
    Ok(rows.unwrap_or(0) as usize)
}

/// Split raw BYTES contents into items. Each is a little-endian length of four bytes, then its bytes.
/// At most `count` + 1 items are read: one too many is enough to refuse them.
fn raw_keys(blob: &[u8], count: usize) -> Result<Vec<&[u8]>, Refusal> {
    let mut items = Vec::new();
    let mut offset = 0;
    while offset < blob.len() && items.len() <= count {
        let Some(four) = blob[offset..].first_chunk::<4>() else {
            return Err(Refusal::invalid(format!(
                "tensor '{KEYS}' ends within a length, at byte {offset} of {}",
                blob.len()
            )));
        };
        let length = u32::from_le_bytes(*four) as usize;
        offset += 4;
        let Some(item) = blob.get(offset..offset.saturating_add(length)) else {
            return Err(Refusal::invalid(format!(
                "tensor '{KEYS}' promises {length} bytes at byte {offset} of {}",
                blob.len()
            )));
        };
        items.push(item);
        offset += length;
    }
    Ok(items)
}

/// Refuse a tensor whose number of elements is not that of its shape.
fn check_count(name: &str, seen: usize, count: usize) -> Result<(), Refusal> {
    if seen == count {
        return Ok(());
    }
    let seen = if seen > count { format!("more than {count}") } else { seen.to_string() };
    Err(Refusal::invalid(format!("tensor '{name}' holds {seen} elements; its shape is {count}")))
}

/// The values of the parameters `sticky_key` and `request_id`.
fn parameters<'a>(parsed: &ParsedRequest<'a>) -> Result<(&'a str, Option<&'a str>), Refusal> {
    let (mut sticky, mut request_id) = ("", None);
    for (name, value) in &parsed.parameters {
        if !matches!(*name, "sticky_key" | "request_id") {
            return Err(Refusal::invalid(format!(
                "parameter {} is unknown; there are ['sticky_key', 'request_id']",
                shown(name)
            )));
        }
        let Some(value) = value else {
            let message = format!("parameter '{name}' is no string_param; send text");
            return Err(Refusal::invalid(message));
        };
        if *name == "sticky_key" {
            sticky = value;
        } else {
            request_id = Some(*value);
        }
    }
    Ok((sticky, request_id))
}

/// A name of the caller as a message may repeat it: Python's `ascii` of its first 40 characters.
fn shown(name: &str) -> String {
    let mut short: String = name.chars().take(NAME_SHOWN_MAX).collect();
    if short.len() < name.len() {
        short.push_str("...");
    }
    let quote = if short.contains('\'') && !short.contains('"') { '"' } else { '\'' };
    let mut ascii = String::from(quote);
    for c in short.chars() {
        match c {
            '\\' => ascii.push_str("\\\\"),
            '\n' => ascii.push_str("\\n"),
            '\r' => ascii.push_str("\\r"),
            '\t' => ascii.push_str("\\t"),
            c if c == quote => ascii.extend(['\\', c]),
            ' '..='~' => ascii.push(c),
            c if (c as u32) < 0x100 => ascii.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => ascii.push_str(&format!("\\u{:04x}", c as u32)),
            c => ascii.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    ascii.push(quote);
    ascii
}
