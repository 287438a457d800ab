//! Reads an ONNX file with boosted trees into `Trees`. The file has to be exactly of the kind that
//! training/export/convert.py writes. Any other is refused with a reason, and ONNX Runtime scores it.

use std::collections::HashMap;

use crate::accel::trees::{order_key, FeatureNodes, Link, Node, Trees, LEAVES_MAX, WIDTH_MAX};
use crate::calls::proto::{text, varint, Field, FieldReader, Malformed, ReadResult};

/// Most bytes of a file: some ten thousand trees. Lists of numbers take up to twelve times their bytes
/// while they are read.
pub const BYTES_MAX: usize = 32 << 20;
/// Operators of a file, and inputs or outputs of an operator, that are read. Further operators are
/// only counted.
const OPERATORS_MAX: usize = 2;
/// Characters of an unknown name that a refusal repeats.
const NAME_SHOWN_MAX: usize = 40;

/// Read a model from `inputs` (B, F) to `scores` (B, 1): a TreeEnsembleRegressor, and a Sigmoid for a
/// probability. The error says why the file is refused.
pub fn read(onnx: &[u8]) -> Result<Trees, String> {
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
    let last = sigmoid.unwrap_or(trees);
    let as_expected = trees.kind == "TreeEnsembleRegressor"
        && trees.domain == "ai.onnx.ml"
        && trees.inputs == ["inputs"]
        && trees.outputs.len() == 1
        && last.outputs == ["scores"];
    let sigmoid_as_expected = sigmoid.is_none_or(|sigmoid| {
        sigmoid.kind == "Sigmoid"
            && sigmoid.domain.is_empty()
            && sigmoid.inputs == trees.outputs
            && sigmoid.attributes.is_empty()
    });
    if !as_expected || !sigmoid_as_expected {
        let kinds: Vec<String> =
            operators.nodes.iter().map(|operator| printable(operator.kind)).collect();
        return Err(format!("operators {} so wired", kinds.join(" and ")));
    }
    let link = sigmoid.map_or(Link::Identity, |_| Link::Sigmoid);
    ensemble(&trees.attributes, operators.width, link)
}

/// A name of the file, made short and printable for a log.
fn printable(name: &str) -> String {
    name.chars().take(NAME_SHOWN_MAX).flat_map(char::escape_debug).collect()
}

/// The parts of an ONNX graph that matter here.
#[derive(Default)]
struct Operators<'a> {
    nodes: Vec<Operator<'a>>,
    /// How many operators there are.
    count: usize,
    /// The number of inputs of a row.
    width: usize,
    /// The file has parts that are not known here.
    other: bool,
}

/// One node of the graph, an ONNX NodeProto.
#[derive(Default)]
struct Operator<'a> {
    kind: &'a str,
    domain: &'a str,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    attributes: HashMap<&'a str, Attribute<'a>>,
}

/// An AttributeProto, with a field for each type that is known here.
#[derive(Default)]
struct Attribute<'a> {
    number: i64,
    text: &'a [u8],
    floats: Vec<f32>,
    numbers: Vec<i64>,
    texts: Vec<&'a [u8]>,
    /// It has a value of another type.
    other: bool,
}

fn operators(onnx: &[u8]) -> ReadResult<Operators<'_>> {
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
        if wired > OPERATORS_MAX || read.attributes.len() > ATTRIBUTES.len() {
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

/// The known attributes of TreeEnsembleRegressor.
const ATTRIBUTES: [&str; 17] = [
    "aggregate_function",
    "base_values",
    "n_targets",
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
    "target_ids",
    "target_nodeids",
    "target_treeids",
    "target_weights",
];

/// The nodes of all trees in lists with one entry for each node, as TreeEnsembleRegressor has them.
struct NodeLists<'a> {
    leaf: Vec<bool>,
    feature: &'a [i64],
    threshold: &'a [f32],
    missing_left: Vec<bool>,
    /// Indexes of the child nodes. A leaf has itself.
    true_child: Vec<usize>,
    false_child: Vec<usize>,
    /// The values of leaves.
    value: Vec<Option<f32>>,
    /// The index of the first node of each tree.
    roots: Vec<usize>,
}

/// Build the ensemble from the attributes of a TreeEnsembleRegressor.
fn ensemble(
    attributes: &HashMap<&str, Attribute>,
    width: usize,
    link: Link,
) -> Result<Trees, String> {
    // Check that the ensemble is a plain sum with one target.
    let unknown =
        attributes.iter().find(|(name, attribute)| !ATTRIBUTES.contains(name) || attribute.other);
    if let Some((name, _)) = unknown {
        return Err(format!("attribute {} is not known", printable(name)));
    }
    let text = |name: &str| attributes.get(name).map_or(&b""[..], |attribute| attribute.text);
    let plain_sum = attributes.get("n_targets").is_some_and(|attribute| attribute.number == 1)
        && matches!(text("post_transform"), b"" | b"NONE")
        && matches!(text("aggregate_function"), b"" | b"SUM");
    if !plain_sum {
        return Err("it has several targets, or does not simply sum".to_owned());
    }
    let base = match attributes.get("base_values").map(|attribute| &attribute.floats[..]) {
        None | Some([]) => 0.0,
        Some([base]) => *base,
        Some(_) => return Err("it has several base values".to_owned()),
    };
    // Walk every tree, and group its nodes by feature.
    let lists = node_lists(attributes).ok_or("its lists of nodes do not fit each other")?;
    let mut feature_nodes: HashMap<(usize, bool), Vec<Node>> = HashMap::new();
    let mut leaves = Vec::with_capacity(lists.roots.len());
    for (tree, root) in lists.roots.iter().enumerate() {
        let mut walk = TreeWalk {
            lists: &lists,
            tree: tree as u32,
            values: Vec::new(),
            feature_nodes: &mut feature_nodes,
        };
        walk.visit(*root, 0).ok_or_else(|| {
            format!("tree {tree} has more than {LEAVES_MAX} leaves, a threshold NaN, or no end")
        })?;
        leaves.push(walk.values);
    }
    // Sort the groups, so that the same file always gives the same ensemble.
    let mut feature_nodes: Vec<FeatureNodes> = feature_nodes
        .into_iter()
        .map(|((feature, missing_left), nodes)| FeatureNodes {
            feature,
            missing_left,
            nodes,
        })
        .collect();
    feature_nodes.sort_by_key(|nodes| (nodes.feature, nodes.missing_left));
    Trees::new(width, feature_nodes, &leaves, base, link)
        .ok_or_else(|| format!("{width} inputs where 1 to {WIDTH_MAX} are known, or one past them"))
}

/// Read the lists of nodes. None: they do not fit each other.
fn node_lists<'a>(attributes: &'a HashMap<&str, Attribute>) -> Option<NodeLists<'a>> {
    // Find the lists, and check their lengths.
    let numbers = |name: &str| attributes.get(name).map(|attribute| &attribute.numbers[..]);
    let modes = &attributes.get("nodes_modes")?.texts;
    let (trees, ids) = (numbers("nodes_treeids")?, numbers("nodes_nodeids")?);
    let (true_child, false_child) = (numbers("nodes_truenodeids")?, numbers("nodes_falsenodeids")?);
    let (feature, threshold) =
        (numbers("nodes_featureids")?, &attributes.get("nodes_values")?.floats[..]);
    let missing = numbers("nodes_missing_value_tracks_true").unwrap_or_default();
    let count = modes.len();
    let lengths = [
        trees.len(),
        ids.len(),
        true_child.len(),
        false_child.len(),
        feature.len(),
        threshold.len(),
    ];
    let known = |mode: &&[u8]| matches!(*mode, b"LEAF" | b"BRANCH_LEQ");
    let even = lengths.iter().all(|length| *length == count) && modes.iter().all(known);
    if !even || !(missing.is_empty() || missing.len() == count) {
        return None;
    }
    // Find each node by its tree and id, and the first node of each tree.
    let (mut index_of, mut roots) = (HashMap::with_capacity(count), Vec::new());
    for index in 0..count {
        if index_of.insert((trees[index], ids[index]), index).is_some() {
            return None;
        }
        if index == 0 || trees[index] != trees[index - 1] {
            roots.push(index);
        }
    }
    // Turn the ids of children into indexes.
    let leaf: Vec<bool> = modes.iter().map(|mode| *mode == b"LEAF").collect();
    let child = |index: usize, id: i64| match leaf[index] {
        true => Some(index),
        false => index_of.get(&(trees[index], id)).copied(),
    };
    let children =
        |ids: &[i64]| (0..count).map(|index| child(index, ids[index])).collect::<Option<_>>();
    // Give each leaf its weight.
    let mut value = vec![None; count];
    let weights = &attributes.get("target_weights")?.floats;
    let (of_trees, of_ids) = (numbers("target_treeids")?, numbers("target_nodeids")?);
    let targets = numbers("target_ids")?;
    let lengths = [of_trees.len(), of_ids.len(), targets.len()];
    if lengths.iter().any(|length| *length != weights.len())
        || targets.iter().any(|target| *target != 0)
    {
        return None;
    }
    for (index, weight) in weights.iter().enumerate() {
        let slot = &mut value[*index_of.get(&(of_trees[index], of_ids[index]))?];
        if slot.replace(*weight).is_some() || !weight.is_finite() {
            return None;
        }
    }
    // The nodes of a tree have to be neighbours.
    let contiguous = roots.len()
        == roots.iter().map(|index| trees[*index]).collect::<std::collections::HashSet<_>>().len();
    contiguous.then_some(NodeLists {
        true_child: children(true_child)?,
        false_child: children(false_child)?,
        leaf,
        feature,
        threshold,
        missing_left: (0..count)
            .map(|index| missing.get(index).is_some_and(|flag| *flag != 0))
            .collect(),
        value,
        roots,
    })
}

/// A walk through one tree, which collects its leaf values and its nodes.
struct TreeWalk<'a> {
    lists: &'a NodeLists<'a>,
    tree: u32,
    values: Vec<f32>,
    feature_nodes: &'a mut HashMap<(usize, bool), Vec<Node>>,
}

impl TreeWalk<'_> {
    /// Collect the node at `index` and all below it, leaves from left to right. None: the tree has too
    /// many leaves, a threshold that is NaN, or a cycle.
    fn visit(&mut self, index: usize, depth: usize) -> Option<()> {
        let lists = self.lists;
        if lists.leaf[index] {
            self.values.push(lists.value[index]?);
            return (self.values.len() <= LEAVES_MAX).then_some(());
        }
        if depth >= LEAVES_MAX {
            return None; // a tree with LEAVES_MAX leaves is not deeper, so this is a cycle
        }
        if lists.threshold[index].is_nan() {
            return None;
        }
        let first = self.values.len();
        self.visit(lists.true_child[index], depth + 1)?;
        // The leaves that the visit of the true child has added lie to the left of this node.
        let left = self.values.len() - first;
        let threshold = lists.threshold[index];
        let bits = u64::MAX >> (u64::BITS as usize - left) << first;
        let kind = (usize::try_from(lists.feature[index]).ok()?, lists.missing_left[index]);
        self.feature_nodes.entry(kind).or_default().push(Node {
            threshold_key: order_key(threshold, false),
            leaf_mask: !bits,
            tree: self.tree,
        });
        self.visit(lists.false_child[index], depth + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::proto::put_bytes;

    fn refused(nodes: &[&[u8]]) -> String {
        let (mut graph, mut file) = (Vec::new(), Vec::new());
        nodes.iter().for_each(|node| put_bytes(&mut graph, 1, node));
        put_bytes(&mut file, 7, &graph);
        read(&file).expect_err("no trees")
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
