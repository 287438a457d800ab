"""Opens models of other tools and converts them to ONNX; only a sandboxed child runs this code."""
