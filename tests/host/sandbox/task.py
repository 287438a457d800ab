"""What the sandboxed children of these tests run, chosen by the request."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np


def answer(request: bytes, step: Callable[[str], None]) -> bytes:
    """Do what the request's JSON asks for, and return what comes of it."""
    asked = json.loads(request)
    step(f"doing {asked['do']}")
    if asked["do"] == "look":
        seen = {
            "root": sorted(path.name for path in Path("/").iterdir()),
            "environment": dict(os.environ),
        }
        return json.dumps({**seen, "pid": os.getpid()}).encode()
    if asked["do"] == "read":
        return Path(asked["path"]).read_bytes()
    if asked["do"] == "write":
        Path(asked["path"]).write_bytes(b"written")
        return b"written"
    if asked["do"] == "multiply":
        rows = np.arange(12.0).reshape(3, 4)
        return (rows @ rows.T).tobytes()
    if asked["do"] == "fill":
        return bytes(asked["bytes"])
    raise ValueError(f"nothing known of {asked['do']}")
