//! Reads an ONNX file with trees into `Trees`. The file has to be of the kinds that the modules here
//! know. Any other is refused with a reason, and ONNX Runtime scores it.

use std::collections::HashMap;

use crate::accel::trees::node_lists::{floats, grow};
use crate::accel::trees::onnx_graph::{operators, Attribute, OPERATORS_MAX};
use crate::accel::trees::outputs::{Outputs, Transform};
use crate::accel::trees::{Trees, TARGETS_MAX, WIDTH_MAX};

/// Most bytes of a file: some ten thousand trees of 31 leaves. Lists of numbers take up to twelve times
/// their bytes while they are read.
pub const BYTES_MAX: usize = 32 << 20;
/// Characters of an unknown name that a refusal repeats.
const NAME_SHOWN_MAX: usize = 40;

/// Read a model from `inputs` (B, F) to `scores` (B, K): a TreeEnsembleRegressor or the second output of
/// a TreeEnsembleClassifier, and perhaps a Sigmoid. With `picked` it has these of the scores only. The
/// error says why the file is refused.
pub fn read(onnx: &[u8], picked: Option<&[usize]>) -> Result<Trees, String> {
    if onnx.len() > BYTES_MAX {
        return Err(format!("{} bytes; {BYTES_MAX} at most are read", onnx.len()));
    }
    // Read the graph, and check that it has one or two operators and nothing else.
    let operators =
        operators(onnx).map_err(|_| "it is no ONNX file that is read here".to_owned())?;
    let (trees, sigmoid) = match &operators.nodes[..] {
        [trees] => (trees, None),
        [trees, sigmoid] => (trees, Some(sigmoid)),
        _ => return Err(format!("{} operators; one or two are known", operators.count)),
    };
    if operators.count > OPERATORS_MAX {
        return Err(format!("{} operators; one or two are known", operators.count));
    }
    if operators.other {
        return Err("it has initializers or functions".to_owned());
    }
    // Check how the operators are wired.
    let kind = match trees.kind {
        "TreeEnsembleRegressor" if trees.outputs.len() == 1 => Some(Kind::Regressor),
        "TreeEnsembleClassifier" if trees.outputs.len() == 2 => Some(Kind::Classifier),
        _ => None,
    };
    let last = sigmoid.unwrap_or(trees);
    let as_expected = trees.domain == "ai.onnx.ml"
        && trees.inputs == ["inputs"]
        && last.outputs.last() == Some(&"scores");
    let sigmoid_as_expected = sigmoid.is_none_or(|sigmoid| {
        sigmoid.kind == "Sigmoid"
            && sigmoid.domain.is_empty()
            && sigmoid.inputs[..] == trees.outputs[trees.outputs.len() - 1..]
            && sigmoid.outputs.len() == 1
            && sigmoid.attributes.is_empty()
    });
    let Some(kind) = kind.filter(|_| as_expected && sigmoid_as_expected) else {
        let kinds: Vec<String> =
            operators.nodes.iter().map(|operator| printable(operator.kind)).collect();
        return Err(format!("operators {} so wired", kinds.join(" and ")));
    };
    let rows = (operators.width, operators.double);
    let trees = ensemble(&trees.attributes, rows, kind, sigmoid.is_some())?;
    match picked {
        None => Ok(trees),
        Some(columns) => {
            trees.pick(columns).ok_or("a score is picked that there is not".to_owned())
        }
    }
}

/// A name of the file, made short and printable for a log.
fn printable(name: &str) -> String {
    name.chars().take(NAME_SHOWN_MAX).flat_map(char::escape_debug).collect()
}

/// The tree operators of ai.onnx.ml.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regressor,
    Classifier,
}

impl Kind {
    /// What the names of its lists of weights begin with.
    fn prefix(self) -> &'static str {
        match self {
            Kind::Regressor => "target",
            Kind::Classifier => "class",
        }
    }

    /// Whether the operator has an attribute of this name that is known here.
    fn knows(self, name: &str) -> bool {
        let name = match name.strip_suffix("_as_tensor") {
            Some("base_values" | "nodes_hitrates" | "nodes_values") => return true,
            Some(weights) => return weights.strip_prefix(self.prefix()) == Some("_weights"),
            None => name,
        };
        let own: &[&str] = match self {
            Kind::Regressor => &["aggregate_function", "n_targets"],
            Kind::Classifier => &["classlabels_int64s", "classlabels_strings"],
        };
        let of_weights = name
            .strip_prefix(self.prefix())
            .is_some_and(|rest| matches!(rest, "_ids" | "_nodeids" | "_treeids" | "_weights"));
        NODE_ATTRIBUTES.contains(&name) || own.contains(&name) || of_weights
    }
}

/// The known attributes of both operators.
const NODE_ATTRIBUTES: [&str; 11] = [
    "base_values",
    "nodes_falsenodeids",
    "nodes_featureids",
    "nodes_hitrates",
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_nodeids",
    "nodes_treeids",
    "nodes_truenodeids",
    "nodes_values",
    "post_transform",
];

/// Build the ensemble from the attributes of a tree operator. `rows` are the number of inputs, and
/// whether they are float64.
fn ensemble(
    attributes: &HashMap<&str, Attribute>,
    (width, double): (usize, bool),
    kind: Kind,
    sigmoid: bool,
) -> Result<Trees, String> {
    let unknown = attributes.iter().find(|(name, attribute)| !kind.knows(name) || attribute.other);
    if let Some((name, _)) = unknown {
        return Err(format!("attribute {} is not known", printable(name)));
    }
    // Find out what is summed, and what becomes of the sums.
    let number = |name: &str| attributes.get(name).map_or(0, |attribute| attribute.number);
    let labels = |name: &str| {
        attributes.get(name).map_or(0, |attribute| attribute.numbers.len() + attribute.texts.len())
    };
    let target_count = match kind {
        Kind::Regressor => usize::try_from(number("n_targets")).unwrap_or_default(),
        Kind::Classifier => labels("classlabels_int64s").max(labels("classlabels_strings")),
    };
    if !(1..=TARGETS_MAX).contains(&target_count) {
        return Err(format!("{target_count} targets; 1 to {TARGETS_MAX} are known"));
    }
    let grown = grow(attributes, kind.prefix(), target_count, double)?;
    let (trees, has_all) = (grown.trees, grown.has_all);
    let base = floats(attributes, "base_values").map_or(Vec::new(), <[f64]>::to_vec);
    let text = |name: &str| attributes.get(name).map_or(&b""[..], |attribute| attribute.text);
    let transform = match text("post_transform") {
        b"" | b"NONE" => Transform::Identity,
        b"LOGISTIC" => Transform::Logistic,
        b"SOFTMAX" => Transform::Softmax,
        _ => return Err("its post_transform is not known".to_owned()),
    };
    let divisor = match text("aggregate_function") {
        b"" | b"SUM" => None,
        b"AVERAGE" => Some(trees.len() as f64),
        _ => return Err("it does not simply sum".to_owned()),
    };
    // ONNX Runtime adds no base value to a sum of which a row has no weight.
    let has_base = !base.is_empty() && (kind == Kind::Regressor || target_count > 2);
    if has_base && has_all.contains(&false) {
        return Err("it has base values, and no weight of some sums".to_owned());
    }
    let outputs = match kind {
        Kind::Regressor if target_count == 1 && transform != Transform::Identity => None,
        Kind::Regressor => Outputs::new(target_count, divisor, base, transform),
        Kind::Classifier if target_count == 2 => {
            let weights = floats(attributes, "class_weights").unwrap_or_default();
            two_classes(&attributes["class_ids"].numbers, weights, &has_all, base, transform)
        }
        Kind::Classifier if target_count > 2 => Outputs::new(target_count, None, base, transform),
        Kind::Classifier => None,
    };
    let outputs = outputs
        .and_then(|outputs| if sigmoid { outputs.before_sigmoid() } else { Some(outputs) })
        .ok_or("its sums become scores in a way that is not known")?;
    Trees::with_cuts(width, trees, outputs, grown.cuts)
        .ok_or_else(|| format!("{width} inputs where 1 to {WIDTH_MAX} are known, or one past them"))
}

/// What ONNX Runtime makes of the sums of two classes. None: of such ones it is not known.
///
/// `has_all` says of each class whether a row always has a weight of it.
fn two_classes(
    ids: &[i64],
    weights: &[f64],
    has_all: &[bool],
    base: Vec<f64>,
    transform: Transform,
) -> Option<Outputs> {
    if ids.iter().all(|id| *id == 0) {
        // Weights of one class are about the second one. If none is negative, they are probabilities.
        let all_positive = weights.iter().all(|weight| *weight >= 0.0);
        let transform = match transform {
            Transform::Logistic => Transform::TwoLogistic,
            _ if all_positive => Transform::Complement,
            _ => Transform::Opposite,
        };
        return Outputs::new(1, None, base, transform);
    }
    // A class without a weight is left out of a row's scores, and base values are added crosswise.
    (has_all[1] && base.is_empty()).then(|| Outputs::new(2, None, base, transform))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::proto::put_bytes;

    fn refused(nodes: &[&[u8]]) -> String {
        let (mut graph, mut file) = (Vec::new(), Vec::new());
        nodes.iter().for_each(|node| put_bytes(&mut graph, 1, node));
        put_bytes(&mut file, 7, &graph);
        read(&file, None).expect_err("no trees")
    }

    #[test]
    fn read_refuses_with_one_short_line() {
        assert_eq!(refused(&[&b""[..]; 5_000]), "5000 operators; one or two are known");
        let mut named = Vec::new();
        put_bytes(&mut named, 4, "a\nb".repeat(10_000).as_bytes());
        let message = refused(&[&named, &named]);
        assert!(message.len() < 200 && !message.contains('\n'), "{message}");
    }
}
