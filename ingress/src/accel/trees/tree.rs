//! One tree as it was read, before it is laid out for scoring.

use crate::accel::trees::order_key;

/// An inner node. It sends a row that passes its test to the left, and any other to the right.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    /// The index of the input.
    pub feature: u32,
    /// A missing value (NaN) goes to the left.
    pub missing_left: bool,
    /// The order key with which the value is compared.
    pub key: i32,
    /// The value has to equal the key, and otherwise only not to be above it.
    pub equal: bool,
    /// The index of the node to the left.
    pub left: u32,
    /// The index of the node to the right.
    pub right: u32,
}

impl Split {
    /// Whether a value goes to the left.
    pub fn goes_left(&self, value: f32) -> bool {
        let key = order_key(value, self.missing_left);
        match self.equal && !value.is_nan() {
            true => key == self.key,
            false => key <= self.key,
        }
    }
}

/// A node of a tree.
#[derive(Clone, Copy, Debug)]
pub enum Node {
    /// The index of a leaf, counted from left to right.
    Leaf(u32),
    /// An inner node, with its test.
    Split(Split),
}

/// A tree. Its root is the first node, and every other node comes after its parents. It has one parent,
/// or several in a tree that tests for equality with several values one after the other.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The nodes, parents first.
    pub nodes: Vec<Node>,
    /// The sums that the leaves add to, ascending.
    pub targets: Vec<u32>,
    /// The weights of the first leaf in the order of `targets`, then those of the second, and so on.
    pub weights: Vec<f64>,
}

impl Tree {
    /// The number of leaves.
    pub fn leaf_count(&self) -> usize {
        self.nodes.iter().filter(|node| matches!(node, Node::Leaf(_))).count()
    }

    /// The inner nodes.
    pub fn splits(&self) -> impl Iterator<Item = &Split> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Split(split) => Some(split),
            Node::Leaf(_) => None,
        })
    }

    /// Call `note` with each inner node on the way of a row, and whether it goes to the left there.
    pub fn walk(&self, row: &[f32], mut note: impl FnMut(usize, bool)) {
        let mut at = 0;
        while let Node::Split(split) = &self.nodes[at] {
            let left = split.goes_left(row[split.feature as usize]);
            note(at, left);
            at = if left { split.left } else { split.right } as usize;
        }
    }

    /// Whether some node is the child of several, so that it is no tree but a graph.
    pub fn is_shared(&self) -> bool {
        let children = self.splits().flat_map(|split| [split.left, split.right]);
        children.count() >= self.nodes.len()
    }

    /// Whether every node but the root is a child, and names an input below `width` and children after it.
    /// There is a weight for each leaf and target, and the targets are below `target_count`.
    pub fn is_valid(&self, width: usize, target_count: usize) -> bool {
        let count = self.nodes.len();
        let leaves = self.leaf_count();
        let mut named = vec![false; count];
        for (index, node) in self.nodes.iter().enumerate() {
            let fits = match node {
                Node::Leaf(leaf) => (*leaf as usize) < leaves,
                Node::Split(split) => {
                    let children = [split.left as usize, split.right as usize];
                    children.iter().all(|child| {
                        named.get_mut(*child).is_some_and(|named| {
                            *named = true;
                            *child > index
                        })
                    }) && (split.feature as usize) < width
                }
            };
            if !fits {
                return false;
            }
        }
        count > 0
            && named[1..].iter().all(|named| *named)
            && self.targets.iter().all(|target| (*target as usize) < target_count)
            && (target_count > 1 || self.targets.len() == 1)
            && self.weights.len() == leaves * self.targets.len()
    }
}
