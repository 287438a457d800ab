//! Reads any bytes as an ONNX file. The result has to be trees that score any rows, or a short refusal.
#![no_main]

mod scoring;

use libfuzzer_sys::fuzz_target;
use turnout_ingress::accel::trees::onnx;

fuzz_target!(|bytes: &[u8]| match onnx::read(bytes, None) {
    Ok(trees) => {
        scoring::scores_any_rows(&trees);
        scoring::finds_leaf_rows(&trees);
    }
    Err(message) => scoring::is_short(&message),
});
