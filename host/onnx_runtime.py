"""ONNX Runtime, which must tell nothing to its vendor. Import it from here, and nowhere else.

Since 1.32 it makes an identity of the machine in the user's cache folder and sends events to its
vendor's collector. Only the environment variable prevents that, and only before the first import:
`onnxruntime.disable_telemetry_events` comes too late.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
