//! Reads any lists of nodes in an ONNX file that is otherwise valid. The scores have to be those of a
//! walk from node to node through the lists.
#![no_main]

mod scoring;

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use turnout_ingress::accel::trees::onnx;
use turnout_ingress::accel::trees::outputs::logistic;
use turnout_ingress::calls::proto::{put_bytes, put_varint, put_varint_field};

const WIDTH: i64 = 3;
const THRESHOLDS: [f32; 8] =
    [0.0, -0.0, 0.25, -1.5, 3e38, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];

const MODES: [&str; 6] =
    ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE", "BRANCH_EQ", "BRANCH_NEQ"];

/// One node of the lists, made of eight bytes.
#[derive(Clone, Copy)]
struct Entry {
    leaf: bool,
    mode: usize,
    missing: bool,
    tree: i64,
    id: i64,
    yes: i64,
    no: i64,
    feature: i64,
    threshold: f32,
    weight: f32,
}

fn entries(bytes: &[u8]) -> Vec<Entry> {
    let (mut tree, mut id) = (0, 0);
    let mut entry = |eight: &[u8]| {
        // Trees and nodes are mostly in order, as in a real file.
        (tree, id) = match eight[0] >> 4 {
            0 => (tree + 1, 0),
            1 => (i64::from(eight[1]), i64::from(eight[7])),
            _ => (tree, id + 1),
        };
        Entry {
            leaf: eight[0] & 1 == 1,
            mode: usize::from(eight[5] >> 3) % MODES.len(),
            missing: eight[0] & 2 == 2,
            tree,
            id,
            yes: id + i64::from(eight[2] as i8),
            no: id + i64::from(eight[3] as i8),
            feature: i64::from(eight[4] as i8) % (WIDTH + 1),
            threshold: THRESHOLDS[usize::from(eight[5] % 8)],
            weight: f32::from(eight[6] as i8) / 8.0,
        }
    };
    bytes.chunks_exact(8).map(&mut entry).collect()
}

fn attribute(name: &str, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    fill(&mut out);
    out
}

fn numbers(name: &str, values: impl Iterator<Item = i64>) -> Vec<u8> {
    attribute(name, |out| {
        let mut packed = Vec::new();
        values.for_each(|value| put_varint(&mut packed, value as u64));
        put_bytes(out, 8, &packed);
    })
}

fn floats(name: &str, values: impl Iterator<Item = f32>) -> Vec<u8> {
    attribute(name, |out| {
        put_bytes(out, 7, &values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
    })
}

fn node(kind: &str, domain: &str, input: &str, output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, text) in [(1, input), (2, output), (4, kind), (7, domain)] {
        put_bytes(&mut out, number, text.as_bytes());
    }
    attributes.iter().for_each(|attribute| put_bytes(&mut out, 5, attribute));
    out
}

fn file(entries: &[Entry], base: f32) -> Vec<u8> {
    let of = |number: fn(&Entry) -> i64| entries.iter().map(number);
    let leaves = || entries.iter().filter(|entry| entry.leaf);
    let attributes = [
        attribute("n_targets", |out| put_varint_field(out, 3, 1)),
        floats("base_values", [base].into_iter()),
        numbers("nodes_treeids", of(|entry| entry.tree)),
        numbers("nodes_nodeids", of(|entry| entry.id)),
        numbers("nodes_truenodeids", of(|entry| entry.yes)),
        numbers("nodes_falsenodeids", of(|entry| entry.no)),
        numbers("nodes_featureids", of(|entry| entry.feature)),
        numbers("nodes_missing_value_tracks_true", of(|entry| i64::from(entry.missing))),
        floats("nodes_values", entries.iter().map(|entry| entry.threshold)),
        attribute("nodes_modes", |out| {
            let mode = |entry: &Entry| if entry.leaf { "LEAF" } else { MODES[entry.mode] };
            entries.iter().for_each(|entry| put_bytes(out, 9, mode(entry).as_bytes()));
        }),
        numbers("target_treeids", leaves().map(|entry| entry.tree)),
        numbers("target_nodeids", leaves().map(|entry| entry.id)),
        numbers("target_ids", leaves().map(|_| 0)),
        floats("target_weights", leaves().map(|entry| entry.weight)),
    ];
    let nested = |message: Vec<u8>, number: u32| {
        let mut out = Vec::new();
        put_bytes(&mut out, number, &message);
        out
    };
    let mut dimension = Vec::new();
    put_varint_field(&mut dimension, 1, WIDTH as u64);
    let input = [1, 2, 1, 2].into_iter().fold(dimension, nested);
    let mut graph = Vec::new();
    let trees = node("TreeEnsembleRegressor", "ai.onnx.ml", "inputs", "odds", &attributes);
    put_bytes(&mut graph, 1, &trees);
    put_bytes(&mut graph, 1, &node("Sigmoid", "", "odds", "scores", &[]));
    put_bytes(&mut graph, 11, &input);
    nested(graph, 7)
}

/// The score of a row, by a walk through each tree as ONNX describes TreeEnsembleRegressor.
fn walked(entries: &[Entry], base: f32, row: &[f32]) -> f32 {
    let at: HashMap<(i64, i64), &Entry> =
        entries.iter().map(|entry| ((entry.tree, entry.id), entry)).collect();
    let mut sum = 0.0_f32;
    for (index, first) in entries.iter().enumerate() {
        if index > 0 && entries[index - 1].tree == first.tree {
            continue;
        }
        let mut entry = first;
        for _ in 0..=entries.len() {
            if entry.leaf {
                break;
            }
            let value = row[entry.feature as usize];
            let passes = match MODES[entry.mode] {
                "BRANCH_LEQ" => value <= entry.threshold,
                "BRANCH_LT" => value < entry.threshold,
                "BRANCH_GT" => value > entry.threshold,
                "BRANCH_GTE" => value >= entry.threshold,
                "BRANCH_EQ" => value == entry.threshold,
                _ => value != entry.threshold,
            } || value.is_nan() && entry.missing;
            entry = at[&(entry.tree, if passes { entry.yes } else { entry.no })];
        }
        assert!(entry.leaf, "a tree without an end was read");
        sum += entry.weight;
    }
    logistic(sum + base)
}

fuzz_target!(|bytes: &[u8]| {
    let entries = entries(bytes);
    let base = f32::from(bytes.len() as u16 % 17) / 4.0;
    match onnx::read(&file(&entries, base), None) {
        Err(message) => scoring::is_short(&message),
        Ok(trees) => {
            scoring::scores_any_rows(&trees);
            scoring::finds_leaf_rows(&trees);
            let rows = scoring::rows(&trees, 40).expect("three inputs");
            let expected: Vec<f32> =
                rows.chunks_exact(WIDTH as usize).map(|row| walked(&entries, base, row)).collect();
            assert_eq!(scoring::bits(&trees.score(&rows)), scoring::bits(&expected));
        }
    }
});
