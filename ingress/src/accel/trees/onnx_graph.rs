//! Reads the operators of an ONNX file, and of their attributes what trees need.

use std::collections::HashMap;

use crate::calls::proto::{text, varint, Field, FieldReader, Malformed, ReadResult};

/// Operators of a file, and inputs or outputs of an operator, that are read. Further operators are
/// only counted.
pub const OPERATORS_MAX: usize = 2;
/// Attributes of an operator that are read.
const ATTRIBUTES_MAX: usize = 20;

/// The parts of an ONNX graph that matter here.
#[derive(Default)]
pub struct Operators<'a> {
    pub nodes: Vec<Operator<'a>>,
    /// How many operators there are.
    pub count: usize,
    /// The number of inputs of a row.
    pub width: usize,
    /// The file has parts that are not known here.
    pub other: bool,
}

/// One node of the graph, an ONNX NodeProto.
#[derive(Default)]
pub struct Operator<'a> {
    pub kind: &'a str,
    pub domain: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub attributes: HashMap<&'a str, Attribute<'a>>,
}

/// An AttributeProto, with a field for each type that is known here.
#[derive(Default)]
pub struct Attribute<'a> {
    pub number: i64,
    pub text: &'a [u8],
    pub floats: Vec<f32>,
    pub numbers: Vec<i64>,
    pub texts: Vec<&'a [u8]>,
    /// It has a value of another type.
    pub other: bool,
}

/// Read the graph of a file.
pub fn operators(onnx: &[u8]) -> ReadResult<Operators<'_>> {
    let mut read = Operators::default();
    let mut fields = FieldReader::new(onnx, 0);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(7, graph) => read_graph(graph, &mut read)?,
            Field::Bytes(20 | 25, _) => read.other = true,
            _ => {}
        }
    }
    Ok(read)
}

fn read_graph<'a>(graph: &'a [u8], read: &mut Operators<'a>) -> ReadResult<()> {
    let mut fields = FieldReader::new(graph, 1);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, node) => {
                read.count += 1;
                if read.count <= OPERATORS_MAX {
                    read.nodes.push(operator(node)?);
                }
            }
            Field::Bytes(5 | 14 | 15, _) => read.other = true,
            Field::Bytes(11, input) => read.width = width(input)?,
            _ => {}
        }
    }
    Ok(())
}

/// The last dimension of a ValueInfoProto's tensor: type.tensor_type.shape.dim[-1].dim_value.
fn width(input: &[u8]) -> ReadResult<usize> {
    fn inner(message: &[u8], number: u32) -> ReadResult<Option<&[u8]>> {
        let (mut fields, mut last) = (FieldReader::new(message, 2), None);
        while let Some(field) = fields.next_field()? {
            if let Field::Bytes(found, bytes) = field {
                last = if found == number { Some(bytes) } else { last };
            }
        }
        Ok(last)
    }
    let mut message = Some(input);
    for number in [2, 1, 2, 1] {
        message = message.map(|bytes| inner(bytes, number)).transpose()?.flatten();
    }
    let mut fields = FieldReader::new(message.ok_or(Malformed)?, 2);
    while let Some(field) = fields.next_field()? {
        if let Field::Varint(1, value) = field {
            return usize::try_from(value).map_err(|_| Malformed);
        }
    }
    Err(Malformed)
}

/// Read an operator. It is malformed if it has more inputs, outputs or attributes than the known ones.
fn operator(node: &[u8]) -> ReadResult<Operator<'_>> {
    let mut read = Operator::default();
    let mut fields = FieldReader::new(node, 2);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => read.inputs.push(text(bytes)?),
            Field::Bytes(2, bytes) => read.outputs.push(text(bytes)?),
            Field::Bytes(4, bytes) => read.kind = text(bytes)?,
            Field::Bytes(5, bytes) => {
                let (name, attribute) = attribute(bytes)?;
                read.attributes.insert(name, attribute);
            }
            Field::Bytes(7, bytes) => read.domain = text(bytes)?,
            _ => {}
        }
        let wired = read.inputs.len().max(read.outputs.len());
        if wired > OPERATORS_MAX || read.attributes.len() > ATTRIBUTES_MAX {
            return Err(Malformed);
        }
    }
    Ok(read)
}

/// Read an attribute: its name and its value.
fn attribute(message: &[u8]) -> ReadResult<(&str, Attribute<'_>)> {
    let (mut name, mut read) = ("", Attribute::default());
    let mut fields = FieldReader::new(message, 3);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Bytes(1, bytes) => name = text(bytes)?,
            Field::Varint(3, value) => read.number = value as i64,
            Field::Bytes(4, bytes) => read.text = bytes,
            Field::Fixed32(7, bits) => read.floats.push(f32::from_bits(bits)),
            // Packed floats.
            Field::Bytes(7, packed) => {
                let values = packed.chunks_exact(4);
                if !values.remainder().is_empty() {
                    return Err(Malformed);
                }
                let value = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                read.floats.extend(values.map(value));
            }
            Field::Varint(8, value) => read.numbers.push(value as i64),
            // Packed integers.
            Field::Bytes(8, mut packed) => {
                while !packed.is_empty() {
                    let (value, length) = varint(packed)?;
                    read.numbers.push(value as i64);
                    packed = &packed[length..];
                }
            }
            Field::Bytes(9, bytes) => read.texts.push(bytes),
            // The documentation and the type of the value.
            Field::Bytes(13, _) | Field::Varint(20, _) => {}
            _ => read.other = true,
        }
    }
    Ok((name, read))
}
