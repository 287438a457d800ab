//! Decodes any bytes as a PredictRequest and as a ModelInferRequest. The result has to be a call
//! whose parts fit each other, or a refusal.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use turnout_ingress::calls::decode::decode_predict;
use turnout_ingress::calls::infer::decode_infer;
use turnout_ingress::calls::refusal::Refusal;
use turnout_ingress::calls::shape::{Call, ModelShape, ModelShapes, NameLimits};

fn shapes() -> &'static ModelShapes {
    static SHAPES: OnceLock<ModelShapes> = OnceLock::new();
    SHAPES.get_or_init(|| {
        let shape = ModelShape {
            model: "c".to_owned(),
            entities: 1,
            input_indexes: [(b"f0".to_vec(), 0), (b"f1".to_vec(), 1)].into(),
            input_reprs: vec!["'f0'".to_owned(), "'f1'".to_owned()],
            dictionaries: vec![[].into(), [(b"a".to_vec(), 0.0)].into()],
            input_defaults: vec![0.5, 0.0],
            outputs: 1,
            contract: 7,
            rows_max: 4,
            deadline_ns_default: 1_000_000_000,
            nan_inputs_refused: true,
            ..ModelShape::default()
        };
        ModelShapes::from([(b"c".to_vec(), Arc::new(shape))])
    })
}

/// Check the parts of a call, or the length of a refusal's message.
fn check(call: Result<Call, Refusal>) {
    match call {
        Ok(call) => {
            let [inputs, lengths, ids, ..] = call.parts();
            assert_eq!(inputs.len(), call.rows as usize * 2 * 4);
            assert_eq!(ids.len(), lengths.iter().map(|length| *length as usize).sum());
        }
        Err(refusal) => assert!(!refusal.message.is_empty() && refusal.message.len() < 2_000),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = NameLimits {
        name_bytes_max: 128,
        request_id_bytes_max: 128,
        typed_contents_bytes_max: 65_536,
    };
    check(decode_predict(bytes, shapes(), &limits).call);
    check(decode_infer(bytes, shapes(), &limits).decoded.call);
});
