//! The shape of a model, against which its calls are checked, and a call that was checked.

use std::collections::HashMap;
use std::sync::Arc;

/// What decoders know about a model: gateway.columns.ModelShape. Refusals repeat names as Python's
/// `repr` writes them, so those texts are kept too.
#[derive(Clone, Debug, Default)]
pub struct ModelShape {
    pub model: String,
    /// E, the number of entity ids in Row.keys.
    pub entities: usize,
    /// The names of the W request inputs, each as Python's repr writes it.
    pub input_reprs: Vec<String>,
    /// The index of each request input, by its name.
    pub input_indexes: HashMap<Vec<u8>, usize>,
    /// The names of all request inputs, as Python's repr of a list.
    pub inputs_repr: String,
    /// For each request input, the code of each category. Empty if the input is a number.
    pub dictionaries: Vec<HashMap<Vec<u8>, f32>>,
    /// The values of inputs that a row by names leaves out.
    pub input_defaults: Vec<f32>,
    /// K, the number of scores of a row.
    pub outputs: usize,
    /// The hash of the input contract. PredictRequest.contract has to be this or 0.
    pub contract: u64,
    /// Most rows of one call.
    pub rows_max: usize,
    /// The deadline of a call that has none, from its arrival.
    pub deadline_ns_default: i64,
    /// Calls with NaN or infinite inputs are refused.
    pub nan_inputs_refused: bool,
    /// The names of its Open Inference Protocol tensors, as Python's repr of a list.
    pub tensors_repr: String,
}

impl ModelShape {
    /// W, the number of request inputs.
    pub fn width(&self) -> usize {
        self.input_defaults.len()
    }

    /// Whether a message decodes to the same call for both shapes.
    pub fn decodes_like(&self, other: &ModelShape) -> bool {
        let bits = |shape: &ModelShape| -> Vec<u32> {
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

/// The shapes of all models that are served, by name.
pub type ModelShapes = HashMap<Vec<u8>, Arc<ModelShape>>;

/// Bounds on names and texts, for all models.
#[derive(Clone, Copy, Debug)]
pub struct NameLimits {
    /// Bytes of a version or sticky key.
    pub name_bytes_max: usize,
    /// Bytes of a request id.
    pub request_id_bytes_max: usize,
    /// Bytes of a ModelInferRequest outside raw_input_contents.
    pub typed_contents_bytes_max: usize,
}

/// Most bytes of an entity id.
pub const ID_BYTES_MAX: usize = 128;

/// A call that has passed every check. All its values lie in one block, so that a call costs one
/// allocation.
///
/// The block is R x W little-endian float32, R x E lengths of entity ids of one byte each, the entity
/// ids, the sticky key, the request id, and the version of a pin.
#[derive(Clone, Debug)]
pub struct Call {
    /// The model's shape when the call was decoded.
    pub shape: Arc<ModelShape>,
    /// W, the number of request inputs.
    pub rows: u32,
    /// turnout.v1.Criticality. An unknown value becomes 0.
    pub criticality: u8,
    /// Bytes of the sticky key.
    pub sticky: u16,
    /// Bytes of the request id.
    pub request_id: u16,
    /// Bytes of the version that the call is pinned to.
    pub pin: u16,
    /// Whether the caller may pin every version of the model.
    pub any_version: bool,
    /// The values, as described above.
    pub block: Vec<u8>,
}

impl Call {
    /// The parts of the block: inputs, lengths of entity ids, entity ids, sticky key, request id, pin.
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
