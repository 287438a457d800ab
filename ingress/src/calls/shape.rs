//! What the door knows of a model, and the words it refuses a call with.

use std::collections::HashMap;
use std::sync::Arc;

/// gRPC status codes.
pub mod code {
    #![allow(missing_docs)]
    pub const OK: u32 = 0;
    pub const CANCELLED: u32 = 1;
    pub const INVALID_ARGUMENT: u32 = 3;
    pub const DEADLINE_EXCEEDED: u32 = 4;
    pub const NOT_FOUND: u32 = 5;
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    pub const FAILED_PRECONDITION: u32 = 9;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const INTERNAL: u32 = 13;
    pub const UNAVAILABLE: u32 = 14;
}

/// One status for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// gRPC's number.
    pub code: u32,
    /// What is so, what was promised, the way out.
    pub words: String,
    /// grpc-retry-pushback-ms.
    pub pushback_ms: Option<u32>,
}

impl Refusal {
    /// A refusal without a pushback.
    pub fn new(code: u32, words: impl Into<String>) -> Refusal {
        Refusal {
            code,
            words: words.into(),
            pushback_ms: None,
        }
    }

    /// The caller's mistake.
    pub fn invalid(words: impl Into<String>) -> Refusal {
        Refusal::new(code::INVALID_ARGUMENT, words)
    }
}

/// gateway.columns.ModelShape, and how Python would write its names.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// The model's name.
    pub model: String,
    /// E: ids in Row.keys.
    pub entities: usize,
    /// R request inputs: their names as Python's repr has them.
    pub input_reprs: Vec<String>,
    /// Name to place.
    pub input_indexes: HashMap<Vec<u8>, usize>,
    /// All names, as Python's repr of a list has them.
    pub inputs_repr: String,
    /// Category to code, an input; empty where it is a plain number.
    pub dictionaries: Vec<HashMap<Vec<u8>, f32>>,
    /// For named inputs left out.
    pub input_defaults: Vec<f32>,
    /// K: scores a row.
    pub outputs: usize,
    /// PredictRequest.contract must be this, or 0.
    pub contract: u64,
    /// Rows in one call.
    pub rows_max: usize,
    /// For calls without a deadline.
    pub deadline_ns_default: i64,
    /// NaN and infinite inputs are refused.
    pub nan_inputs_refused: bool,
    /// The tensors of the Open Inference Protocol, as Python's repr of a list has them.
    pub tensors_repr: String,
}

impl Shape {
    /// R.
    pub fn width(&self) -> usize {
        self.input_defaults.len()
    }

    /// Whether calls decoded for either are the same.
    pub fn same(&self, other: &Shape) -> bool {
        let bits = |shape: &Shape| -> Vec<u32> {
            shape.input_defaults.iter().map(|value| value.to_bits()).collect()
        };
        self.model == other.model
            && self.entities == other.entities
            && self.inputs_repr == other.inputs_repr
            && self.dictionaries == other.dictionaries
            && bits(self) == bits(other)
            && self.outputs == other.outputs
            && self.contract == other.contract
            && self.rows_max == other.rows_max
            && self.deadline_ns_default == other.deadline_ns_default
            && self.nan_inputs_refused == other.nan_inputs_refused
    }
}

/// Every model that is served here.
pub type Shapes = HashMap<Vec<u8>, Arc<Shape>>;

/// Bounds that hold for every model.
#[derive(Clone, Copy, Debug)]
pub struct NameLimits {
    /// Model and version names, sticky keys.
    pub name_bytes_max: usize,
    /// Request ids.
    pub request_id_bytes_max: usize,
    /// Of a ModelInfer outside raw_input_contents.
    pub typed_bytes_max: usize,
}

/// Bytes of an entity id.
pub const ID_BYTES_MAX: usize = 128;

/// One well-formed call: its values in one block.
///
/// R*W little-endian float32, R*E id lengths of one byte, the ids, sticky key, request id, pin.
#[derive(Clone, Debug)]
pub struct Call {
    /// The model as it was when the call was decoded.
    pub shape: Arc<Shape>,
    /// R.
    pub rows: u32,
    /// turnout.v1.Criticality; 0 where it is none of ours.
    pub criticality: u8,
    /// Bytes of the sticky key.
    pub sticky: u16,
    /// Bytes of the request id.
    pub request_id: u16,
    /// Bytes of the version asked for.
    pub pin: u16,
    /// See above.
    pub block: Vec<u8>,
}

impl Call {
    /// The parts of the block: inputs, id lengths, ids, sticky, request id, pin.
    pub fn parts(&self) -> [&[u8]; 6] {
        let rows = self.rows as usize;
        let (inputs, rest) = self.block.split_at(rows * self.shape.width() * 4);
        let (lengths, rest) = rest.split_at(rows * self.shape.entities);
        let texts = self.sticky as usize + self.request_id as usize + self.pin as usize;
        let (ids, rest) = rest.split_at(rest.len() - texts);
        let (sticky, rest) = rest.split_at(self.sticky as usize);
        let (request_id, pin) = rest.split_at(self.request_id as usize);
        [inputs, lengths, ids, sticky, request_id, pin]
    }
}

/// The model by its name, or why not.
pub fn shape_of<'a>(model: &str, shapes: &'a Shapes) -> Result<&'a Arc<Shape>, Refusal> {
    if let Some(shape) = shapes.get(model.as_bytes()) {
        return Ok(shape);
    }
    let bytes = model.as_bytes();
    let plain = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-' | b'.');
    let named = !bytes.is_empty()
        && bytes.len() <= 128
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(plain);
    if !named {
        return Err(Refusal::invalid(format!(
            "the model's name is {} bytes long or has odd characters; it is 1 to 128 of letters, \
             digits, '_', '-' and '.'",
            bytes.len()
        )));
    }
    let words = format!("model '{model}' is not served here");
    Err(Refusal::new(code::NOT_FOUND, words))
}

/// Whether the model takes calls of this many rows.
pub fn check_rows(rows: usize, shape: &Shape) -> Result<(), Refusal> {
    if rows == 0 {
        return Err(Refusal::invalid("the call has 0 rows; send at least one"));
    }
    if rows > shape.rows_max {
        return Err(Refusal::new(
            code::RESOURCE_EXHAUSTED,
            format!(
                "the call has {rows} rows; model '{}' takes {} a call; send it in parts",
                shape.model, shape.rows_max
            ),
        ));
    }
    Ok(())
}

/// Whether `text` is short and clean.
pub fn check_text(field: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() > bytes_max {
        return Err(Refusal::invalid(format!(
            "{field} is {} bytes long; it must be at most {bytes_max}",
            text.len()
        )));
    }
    if control(text.as_bytes()) {
        return Err(Refusal::invalid(format!("{field} holds a control character; remove it")));
    }
    Ok(())
}

/// Whether `id` is one; the words say why not.
pub fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(format!(
            "an entity id is {} bytes long; it must be 1 to {ID_BYTES_MAX} bytes of UTF-8",
            id.len()
        ));
    }
    if control(id.as_bytes()) {
        let is_control = |c: char| matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}');
        let found = id.chars().enumerate().find(|(_, c)| is_control(*c));
        let (place, found) = found.unwrap_or((0, '\0'));
        return Err(format!(
            "an entity id holds control character U+{:04X} at {place}; remove it",
            found as u32
        ));
    }
    Ok(())
}

/// C0, DEL or C1 in UTF-8.
#[inline]
fn control(text: &[u8]) -> bool {
    let plain = text
        .iter()
        .fold(true, |plain, &octet| plain & (octet >= 0x20) & (octet != 0x7f) & (octet != 0xc2));
    if plain {
        return false;
    }
    text.iter().enumerate().any(|(place, &octet)| {
        octet < 0x20
            || octet == 0x7f
            || (octet == 0xc2 && text.get(place + 1).is_some_and(|next| *next < 0xa0))
    })
}

/// Refuse NaN and infinite inputs where the model takes none.
pub fn check_finite(inputs: &[u8], shape: &Shape) -> Result<(), Refusal> {
    if !shape.nan_inputs_refused {
        return Ok(());
    }
    let unusable = inputs
        .chunks_exact(4)
        .filter(|four| !f32::from_le_bytes([four[0], four[1], four[2], four[3]]).is_finite())
        .count();
    if unusable > 0 {
        return Err(Refusal::invalid(format!(
            "{unusable} inputs are NaN or infinite, and model '{}' does not take them",
            shape.model
        )));
    }
    Ok(())
}
