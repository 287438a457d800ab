"""Run protoc over this folder: `python -m protos.generate [target]` (needs the dev extra)."""

import sys
from pathlib import Path

HOUSE = Path(__file__).parents[1]


def generate(target: Path) -> int:
    """Write what protoc makes of each .proto below *target*; 0: all went well."""
    from grpc_tools import protoc  # grpcio-tools is a dev extra, absent when serving

    sources = sorted(f"protos/{path.name}" for path in (HOUSE / "protos").glob("*.proto"))
    flags = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    return int(protoc.main(["protoc", f"-I{HOUSE}", *flags, *sources]))


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HOUSE))
