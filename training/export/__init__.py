"""From a fitted model to an ONNX graph, and the proof that both score alike."""
