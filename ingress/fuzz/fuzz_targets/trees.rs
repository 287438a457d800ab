//! Any bytes as an ONNX file: trees that score any rows, or a refusal in a few words.
#![no_main]

mod scoring;

use libfuzzer_sys::fuzz_target;
use turnout_ingress::accel::onnx_trees as trees_onnx;

fuzz_target!(|bytes: &[u8]| match trees_onnx::read(bytes) {
    Ok(trees) => scoring::scores_any_rows(&trees),
    Err(words) => scoring::few(&words),
});
