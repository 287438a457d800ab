"""Reads ONNX graphs: nodes, constants, splits of trees, and the number of rows they take."""
