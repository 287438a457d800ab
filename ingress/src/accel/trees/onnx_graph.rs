//! Reads the operators of an ONNX file, and of their attributes what trees need.

use std::collections::HashMap;

use crate::calls::proto::{text, varint, Field, FieldReader, Malformed, ReadResult};

/// Operators of a file, and inputs or outputs of an operator, that are read. Further operators are
/// only counted.
pub const OPERATORS_MAX: usize = 2;
/// Attributes of an operator that are read.
const ATTRIBUTES_MAX: usize = 20;
/// Element types of a TensorProto.
const FLOAT: u64 = 1;
const DOUBLE: u64 = 11;

/// The parts of an ONNX graph that matter here.
#[derive(Default)]
pub struct Operators<'a> {
    pub nodes: Vec<Operator<'a>>,
    /// How many operators there are.
    pub count: usize,
    /// The number of inputs of a row.
    pub width: usize,
    /// The inputs are float64.
    pub double: bool,
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
    /// Numbers of float32, or of a tensor of float32 or float64.
    pub floats: Vec<f64>,
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
            Field::Bytes(11, input) => (read.width, read.double) = rows(input)?,
            _ => {}
        }
    }
    Ok(())
}

/// The last dimension of a ValueInfoProto's tensor, type.tensor_type.shape.dim[-1].dim_value, and whether
/// its elements, type.tensor_type.elem_type, are float64.
fn rows(input: &[u8]) -> ReadResult<(usize, bool)> {
    fn inner(message: &[u8], number: u32) -> ReadResult<Option<&[u8]>> {
        let (mut fields, mut last) = (FieldReader::new(message, 2), None);
        while let Some(field) = fields.next_field()? {
            if let Field::Bytes(found, bytes) = field {
                last = if found == number { Some(bytes) } else { last };
            }
        }
        Ok(last)
    }
    fn path<'a>(message: &'a [u8], numbers: &[u32]) -> ReadResult<&'a [u8]> {
        numbers.iter().try_fold(message, |bytes, number| inner(bytes, *number)?.ok_or(Malformed))
    }
    fn first(message: &[u8]) -> ReadResult<u64> {
        let mut fields = FieldReader::new(message, 2);
        while let Some(field) = fields.next_field()? {
            if let Field::Varint(1, value) = field {
                return Ok(value);
            }
        }
        Err(Malformed)
    }
    let tensor = path(input, &[2, 1])?;
    let width = usize::try_from(first(path(tensor, &[2, 1])?)?).map_err(|_| Malformed)?;
    Ok((width, first(tensor)? == DOUBLE))
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
            Field::Bytes(5, bytes) => read.floats = tensor(bytes)?,
            Field::Fixed32(7, bits) => read.floats.push(f64::from(f32::from_bits(bits))),
            Field::Bytes(7, packed) => read.floats.extend(singles(packed)?),
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

/// Packed float32 numbers.
fn singles(packed: &[u8]) -> ReadResult<impl Iterator<Item = f64> + '_> {
    let value = |four: &[u8]| f64::from(f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    let values = packed.chunks_exact(4);
    values.remainder().is_empty().then(|| values.map(value)).ok_or(Malformed)
}

/// Packed float64 numbers.
fn doubles(packed: &[u8]) -> ReadResult<impl Iterator<Item = f64> + '_> {
    let value = |eight: &[u8]| f64::from_le_bytes(std::array::from_fn(|at| eight[at]));
    let values = packed.chunks_exact(8);
    values.remainder().is_empty().then(|| values.map(value)).ok_or(Malformed)
}

/// The numbers of a TensorProto. It is malformed unless they are float32 or float64 in the file itself.
fn tensor(message: &[u8]) -> ReadResult<Vec<f64>> {
    let (mut kind, mut read, mut raw) = (0, Vec::new(), None);
    let mut fields = FieldReader::new(message, 4);
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Varint(2, value) => kind = value,
            Field::Bytes(4, packed) => read.extend(singles(packed)?),
            Field::Bytes(9, bytes) => raw = Some(bytes),
            Field::Bytes(10, packed) => read.extend(doubles(packed)?),
            // The dimensions and the name.
            Field::Varint(1, _) | Field::Bytes(1 | 8, _) => {}
            _ => return Err(Malformed),
        }
    }
    match (kind, raw) {
        (FLOAT | DOUBLE, None) => {}
        (FLOAT, Some(bytes)) => read.extend(singles(bytes)?),
        (DOUBLE, Some(bytes)) => read.extend(doubles(bytes)?),
        _ => return Err(Malformed),
    }
    Ok(read)
}
