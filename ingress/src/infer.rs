//! A row-shaped ModelInfer's bytes to a call: every check of gateway/open_inference.py.

mod checks;

use checks::check;

use crate::predict::Decoded;
use crate::proto::{lengths_of, text, varint, Field, Fields, Malformed, Read};
use crate::shape::{
    check_finite, check_id, check_rows, check_text, shape_of, Call, DoorLimits, Refusal, Shape,
    Shapes,
};

const KEYS: &str = "keys";
const INPUTS: &str = "inputs";
const SCORES: &str = "scores";
const RAW_FIELD: u64 = 7;
const FIELDS_MAX: usize = 64;
const ROWS_MAX: i64 = (1 << 31) - 1;
const NAME_SHOWN_MAX: usize = 40;
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

/// One input tensor.
#[derive(Default)]
struct Tensor<'a> {
    name: &'a str,
    datatype: &'a str,
    /// The first three sizes; `dimensions` counts all.
    shape: Vec<i64>,
    dimensions: usize,
    parameters: Vec<&'a str>,
    /// Which of CONTENTS hold something.
    filled: [bool; 8],
    floats: Vec<u8>,
    items: Vec<&'a [u8]>,
}

/// A ModelInferRequest, borrowed from its bytes.
#[derive(Default)]
struct Parsed<'a> {
    model: &'a str,
    version: &'a str,
    id: &'a str,
    /// Name, and the text where it is one.
    parameters: Vec<(&'a str, Option<&'a str>)>,
    inputs: Vec<Tensor<'a>>,
    /// Name and number of parameters.
    outputs: Vec<(&'a str, Vec<&'a str>)>,
    raw: Vec<&'a [u8]>,
}

/// A ModelInfer: the call, and how its reply is written.
pub struct Asked {
    /// As for Predict.
    pub decoded: Decoded,
    /// The request's `id`, echoed.
    pub id: Vec<u8>,
    /// Scores go back raw.
    pub raw: bool,
}

/// Decode one message.
pub fn decode(message: &[u8], shapes: &Shapes, limits: &DoorLimits) -> Asked {
    let mut parsed = Parsed::default();
    let call = weigh(message, limits.typed_bytes_max)
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
    Asked {
        decoded: Decoded {
            call,
            model,
            request_id: String::new(),
        },
        id: parsed.id.as_bytes().to_vec(),
        raw: !parsed.raw.is_empty(),
    }
}

fn weigh(message: &[u8], typed_bytes_max: usize) -> Result<(), Refusal> {
    if message.len() <= typed_bytes_max {
        return Ok(());
    }
    match lengths_of(message, RAW_FIELD, FIELDS_MAX) {
        Ok(lengths) => {
            let beside = message.len() - lengths.into_iter().sum::<usize>();
            if beside > typed_bytes_max {
                return Err(Refusal::invalid(format!(
                    "{beside} bytes of the message are outside raw_input_contents; typed contents \
                     are taken up to {typed_bytes_max} (typed_contents_bytes_max): send the tensors \
                     raw"
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

fn parse<'a>(message: &'a [u8], parsed: &mut Parsed<'a>) -> Read<()> {
    let mut fields = Fields::of(message, 0);
    while let Some(field) = fields.step()? {
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
                    // More than the two known ones are refused, whatever they are.
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

fn tensor(message: &[u8]) -> Read<Tensor<'_>> {
    let mut tensor = Tensor::default();
    let mut fields = Fields::of(message, 1);
    while let Some(field) = fields.step()? {
        match field {
            Field::Bytes(1, bytes) => tensor.name = text(bytes)?,
            Field::Bytes(2, bytes) => tensor.datatype = text(bytes)?,
            Field::Bytes(3, packed) => numbers(packed, |value| tensor.size(value as i64))?,
            Field::Number(3, value) => tensor.size(value as i64),
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
    fn size(&mut self, size: i64) {
        self.dimensions += 1;
        if self.shape.len() < 3 {
            self.shape.push(size);
        }
    }
}

fn contents<'a>(message: &'a [u8], tensor: &mut Tensor<'a>) -> Read<()> {
    let mut fields = Fields::of(message, 2);
    while let Some(field) = fields.step()? {
        match field {
            Field::Bytes(number @ 1..=5, packed) => {
                numbers(packed, |_| tensor.filled[number as usize - 1] = true)?;
            }
            Field::Number(number @ 1..=5, _) => tensor.filled[number as usize - 1] = true,
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
            Field::Narrow(6, bits) => {
                tensor.filled[5] = true;
                tensor.floats.extend_from_slice(&bits.to_le_bytes());
            }
            Field::Wide(7, _) => tensor.filled[6] = true,
            Field::Bytes(8, item) => {
                tensor.filled[7] = true;
                tensor.items.push(item);
            }
            _ => {}
        }
    }
    Ok(())
}

fn numbers(mut packed: &[u8], mut each: impl FnMut(u64)) -> Read<()> {
    while !packed.is_empty() {
        let (value, length) = varint(packed)?;
        each(value);
        packed = &packed[length..];
    }
    Ok(())
}

fn output(message: &[u8]) -> Read<(&str, Vec<&str>)> {
    let (mut name, mut parameters) = ("", Vec::new());
    let mut fields = Fields::of(message, 1);
    while let Some(field) = fields.step()? {
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

fn parameter_entry(entry: &[u8], depth: u32) -> Read<(&str, Option<&str>)> {
    let (mut name, mut value) = ("", None);
    let mut fields = Fields::of(entry, depth);
    while let Some(field) = fields.step()? {
        match field {
            Field::Bytes(1, bytes) => name = text(bytes)?,
            Field::Bytes(2, bytes) => value = parameter(bytes, depth + 1, value)?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// The text of an InferParameter; None where it is something else.
fn parameter<'a>(message: &'a [u8], depth: u32, before: Option<&'a str>) -> Read<Option<&'a str>> {
    let mut value = before;
    let mut fields = Fields::of(message, depth);
    while let Some(field) = fields.step()? {
        match field {
            Field::Bytes(3, bytes) => value = Some(text(bytes)?),
            Field::Number(1 | 2 | 5, _) | Field::Wide(4, _) => value = None,
            _ => {}
        }
    }
    Ok(value)
}
