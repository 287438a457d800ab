"""Converts fitted models to ONNX graphs, and certifies that both give the same scores."""
