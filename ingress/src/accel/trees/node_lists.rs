//! Grows trees from the lists of nodes and weights that ONNX's tree operators have.

use std::collections::{HashMap, HashSet};

use crate::accel::trees::cuts::Cuts;
use crate::accel::trees::onnx_graph::Attribute;
use crate::accel::trees::order_key;
use crate::accel::trees::tree::{Node, Split, Tree};

type Attributes<'a> = HashMap<&'a str, Attribute<'a>>;

/// A refusal of lists that contradict each other.
const CONTRADICTION: &str = "its lists of nodes do not fit each other";

/// How a node compares, an entry of `nodes_modes`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Leaf,
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    Unequal,
}

impl Mode {
    fn read(text: &[u8]) -> Option<Mode> {
        Some(match text {
            b"LEAF" => Mode::Leaf,
            b"BRANCH_LEQ" => Mode::AtMost,
            b"BRANCH_LT" => Mode::Below,
            b"BRANCH_GTE" => Mode::AtLeast,
            b"BRANCH_GT" => Mode::Above,
            b"BRANCH_EQ" => Mode::Equal,
            b"BRANCH_NEQ" => Mode::Unequal,
            _ => return None,
        })
    }

    /// Whether it compares with the number before its threshold: below a number is not above that one.
    fn is_below(self) -> bool {
        matches!(self, Mode::Below | Mode::AtLeast)
    }
}

/// The nodes of all trees, with one entry of each list for each node.
struct NodeLists<'a> {
    modes: Vec<Mode>,
    trees: &'a [i64],
    true_ids: &'a [i64],
    false_ids: &'a [i64],
    features: &'a [i64],
    thresholds: &'a [f64],
    /// What the operator compares float64 numbers with. None: it compares float32 numbers.
    cuts: Option<Cuts>,
    missing_true: &'a [i64],
    /// The index of each node, by its tree and id.
    index_of: HashMap<(i64, i64), u32>,
    /// The index of the first node of each tree.
    roots: Vec<usize>,
}

/// The weights of nodes, sorted by node and target.
struct Weights {
    /// (index of the node, target, weight).
    entries: Vec<(u32, u32, f64)>,
}

/// All trees of an operator.
pub struct Grown {
    pub trees: Vec<Tree>,
    /// For each target whether a row always has a weight of it, because some tree has one in every leaf.
    pub has_all: Vec<bool>,
    /// As `NodeLists::cuts`.
    pub cuts: Option<Cuts>,
}

/// The numbers of a list: float32 under its name, or a tensor of float64.
pub fn floats<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a [f64]> {
    let tensor = attributes.get(format!("{name}_as_tensor").as_str());
    tensor.or_else(|| attributes.get(name)).map(|attribute| &attribute.floats[..])
}

/// Grow all trees. `prefix` begins the names of the lists of weights. `double` says that the operator
/// reads float64 numbers.
pub fn grow(
    attributes: &Attributes,
    prefix: &str,
    target_count: usize,
    double: bool,
) -> Result<Grown, String> {
    let lists = NodeLists::read(attributes, double).ok_or(CONTRADICTION)?;
    let weights =
        Weights::read(attributes, prefix, &lists, target_count as i64).ok_or(CONTRADICTION)?;
    let mut places = vec![(State::New, 0); lists.modes.len()];
    let mut has_all = vec![false; target_count];
    let mut trees = Vec::with_capacity(lists.roots.len());
    for (tree, root) in lists.roots.iter().enumerate() {
        let grown = grow_tree(&lists, &weights, *root, target_count, &mut places, &mut has_all);
        trees.push(grown.ok_or_else(|| {
            format!("tree {tree} has a threshold NaN, a leaf without a weight, or no end")
        })?);
    }
    Ok(Grown {
        trees,
        has_all,
        cuts: lists.cuts,
    })
}

impl<'a> NodeLists<'a> {
    /// Read the lists of nodes. None: they do not fit each other.
    fn read(attributes: &'a Attributes, double: bool) -> Option<NodeLists<'a>> {
        // Find the lists, and check their lengths.
        let numbers = |name: &str| attributes.get(name).map(|attribute| &attribute.numbers[..]);
        let texts = &attributes.get("nodes_modes")?.texts;
        let modes: Vec<Mode> = texts.iter().map(|text| Mode::read(text)).collect::<Option<_>>()?;
        let (trees, ids) = (numbers("nodes_treeids")?, numbers("nodes_nodeids")?);
        let true_ids = numbers("nodes_truenodeids")?;
        let false_ids = numbers("nodes_falsenodeids")?;
        let features = numbers("nodes_featureids")?;
        let thresholds = floats(attributes, "nodes_values")?;
        let missing_true = numbers("nodes_missing_value_tracks_true").unwrap_or_default();
        let count = modes.len();
        let lengths = [
            trees.len(),
            ids.len(),
            true_ids.len(),
            false_ids.len(),
            features.len(),
            thresholds.len(),
        ];
        if lengths.iter().any(|length| *length != count)
            || !(missing_true.is_empty() || missing_true.len() == count)
        {
            return None;
        }
        // Find each node by its tree and id, and the first node of each tree.
        let (mut index_of, mut roots) = (HashMap::with_capacity(count), Vec::new());
        for index in 0..count {
            let at = u32::try_from(index).ok()?;
            if index_of.insert((trees[index], ids[index]), at).is_some() {
                return None;
            }
            if index == 0 || trees[index] != trees[index - 1] {
                roots.push(index);
            }
        }
        // The nodes of a tree have to be neighbours.
        let contiguous =
            roots.len() == roots.iter().map(|root| trees[*root]).collect::<HashSet<_>>().len();
        // A test for equality also compares with the number before its threshold.
        let inner = (0..count).filter(|at| modes[*at] != Mode::Leaf && !thresholds[*at].is_nan());
        let compared = inner.map(|at| (features[at], thresholds[at], modes[at].is_below()));
        let equal = |at: &usize| matches!(modes[*at], Mode::Equal | Mode::Unequal);
        let before = (0..count).filter(equal).map(|at| (features[at], thresholds[at], true));
        let cuts = if double { Some(Cuts::new(compared.chain(before))?) } else { None };
        contiguous.then_some(NodeLists {
            cuts,
            modes,
            trees,
            true_ids,
            false_ids,
            features,
            thresholds,
            missing_true,
            index_of,
            roots,
        })
    }

    /// The test of an inner node, and the indexes of the nodes to its left and to its right. None: its
    /// threshold is NaN, or a child does not exist.
    fn split(&self, index: usize) -> Option<(Split, [usize; 2])> {
        let child = |ids: &[i64]| {
            self.index_of.get(&(self.trees[index], ids[index])).map(|child| *child as usize)
        };
        let (yes, no) = (child(self.true_ids)?, child(self.false_ids)?);
        let missing_true = self.missing_true.get(index).is_some_and(|flag| *flag != 0);
        let threshold = self.thresholds[index];
        if threshold.is_nan() {
            return None;
        }
        // Every test is "not above the key", or "equals the key".
        let (mode, feature) = (self.modes[index], self.features[index]);
        let key = match &self.cuts {
            None => order_key(threshold as f32, false) - i32::from(mode.is_below()),
            Some(cuts) => cuts.key(feature, threshold, mode.is_below())?,
        };
        // What is missing is unequal to everything, so that is true.
        let (missing_left, children) = match mode {
            Mode::AtMost | Mode::Below | Mode::Equal => (missing_true, [yes, no]),
            Mode::Above | Mode::AtLeast => (!missing_true, [no, yes]),
            Mode::Unequal | Mode::Leaf => (false, [no, yes]),
        };
        let split = Split {
            feature: u32::try_from(feature).ok()?,
            missing_left,
            key,
            equal: matches!(mode, Mode::Equal | Mode::Unequal),
            left: 0,
            right: 0,
        };
        Some((split, children))
    }
}

impl Weights {
    /// Read the lists of weights. None: they do not fit each other or the nodes.
    fn read(
        attributes: &Attributes,
        prefix: &str,
        lists: &NodeLists,
        target_count: i64,
    ) -> Option<Weights> {
        let list = |name: &str| attributes.get(format!("{prefix}_{name}").as_str());
        let numbers = |name: &str| list(name).map(|attribute| &attribute.numbers[..]);
        let weights = floats(attributes, &format!("{prefix}_weights"))?;
        let (trees, ids, targets) = (numbers("treeids")?, numbers("nodeids")?, numbers("ids")?);
        if [trees.len(), ids.len(), targets.len()].iter().any(|count| *count != weights.len()) {
            return None;
        }
        let mut entries = Vec::with_capacity(weights.len());
        for (at, weight) in weights.iter().enumerate() {
            let node = *lists.index_of.get(&(trees[at], ids[at]))?;
            if !(0..target_count).contains(&targets[at]) || !weight.is_finite() {
                return None;
            }
            entries.push((node, targets[at] as u32, *weight));
        }
        // A node has one weight of each target at most.
        entries.sort_unstable_by_key(|(node, target, _)| (*node, *target));
        let twice = entries.windows(2).any(|two| (two[0].0, two[0].1) == (two[1].0, two[1].1));
        (!twice).then_some(Weights {
            entries,
        })
    }

    /// The weights of a node.
    fn of(&self, node: usize) -> &[(u32, u32, f64)] {
        let first = self.entries.partition_point(|entry| (entry.0 as usize) < node);
        let count = self.entries[first..].partition_point(|entry| entry.0 as usize == node);
        &self.entries[first..first + count]
    }
}

/// Where a node of the lists is in the tree that grows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was not visited.
    New,
    /// The nodes below it are being visited.
    Open,
    /// It and all below it were visited.
    Done,
}

/// The test of an inner node and its children, or nothing for a leaf.
type Below = Option<(Split, [usize; 2])>;

/// Grow the tree below the node at `root`. None: a node is below itself, a threshold is NaN, a child
/// does not exist, or a leaf of a single sum has no weight. `places` has the state of each node of the
/// lists, and its index in the tree.
fn grow_tree(
    lists: &NodeLists,
    weights: &Weights,
    root: usize,
    target_count: usize,
    places: &mut [(State, u32)],
    has_all: &mut [bool],
) -> Option<Tree> {
    // Visit nodes after all below them, and what is to the right before what is to the left.
    let mut visited: Vec<(usize, Below)> = Vec::new();
    let mut waiting = vec![(root, None)];
    while let Some((index, below)) = waiting.pop() {
        match (below, places[index].0) {
            (Some(below), _) => {
                places[index].0 = State::Done;
                visited.push((index, below));
            }
            (None, State::Done) => {}
            (None, State::Open) => return None,
            (None, State::New) => {
                places[index].0 = State::Open;
                let is_leaf = lists.modes[index] == Mode::Leaf;
                let below = if is_leaf { None } else { Some(lists.split(index)?) };
                waiting.push((index, Some(below)));
                for child in below.iter().flat_map(|(_, children)| children) {
                    waiting.push((*child, None));
                }
            }
        }
    }
    // In reverse, parents come before children, and leaves from left to right.
    visited.reverse();
    for (at, (index, _)) in visited.iter().enumerate() {
        places[*index].1 = u32::try_from(at).ok()?;
    }
    let (mut nodes, mut leaves) = (Vec::with_capacity(visited.len()), Vec::new());
    for (index, below) in visited {
        nodes.push(match below {
            None => {
                leaves.push(index);
                Node::Leaf(leaves.len() as u32 - 1)
            }
            Some((split, [left, right])) => Node::Split(Split {
                left: places[left].1,
                right: places[right].1,
                ..split
            }),
        });
    }
    // Give the leaves their weights. A leaf without one adds nothing to a sum among several.
    let mut counts = vec![0; target_count];
    for leaf in &leaves {
        weights.of(*leaf).iter().for_each(|(_, target, _)| counts[*target as usize] += 1);
    }
    if target_count == 1 && counts[0] != leaves.len() {
        return None;
    }
    let targets: Vec<u32> =
        (0_u32..).zip(&counts).filter(|(_, n)| **n > 0).map(|(t, _)| t).collect();
    let mut values = vec![0.0; leaves.len() * targets.len()];
    for (row, leaf) in values.chunks_exact_mut(targets.len().max(1)).zip(&leaves) {
        for (_, target, weight) in weights.of(*leaf) {
            row[targets.partition_point(|other| other < target)] = *weight;
        }
    }
    for (all, count) in has_all.iter_mut().zip(counts) {
        *all |= count == leaves.len();
    }
    Some(Tree {
        nodes,
        targets,
        weights: values,
    })
}
