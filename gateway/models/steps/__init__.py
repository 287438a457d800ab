"""Reads an ONNX graph as the steps of a native model, or cuts it at its trees."""
