"""Run protoc over this folder: `python -m protos.generate [target]` (needs the dev extra).

The rooms get every .proto file. The package for callers, `turnout-client`, gets its own copy of the
messages that callers send, because it is installed without the rooms.
"""

import sys
from pathlib import Path

HOUSE = Path(__file__).parents[1]
CLIENT = Path("clients/python/src/turnout_client/_protos")
"""Where the client's copy lies below the target."""

CLIENT_FILES = ("predict", "features")
"""The .proto files of which the client has a copy."""

CLIENT_EDITS = {
    # Messages name the module that they can be imported from, for pickle and for error texts.
    "'protos.{name}_pb2'": "'turnout_client._protos.{name}_pb2'",
    # A pool of its own: protobuf's default pool refuses a second definition of a message. A process
    # may hold stubs that its owner made from another state of the .proto file.
    "_descriptor_pool.Default()": "_descriptor_pool.DescriptorPool()",
}
"""What protoc wrote -> what the copy has. `{name}` is the name of the file."""


def generate(target: Path) -> int:
    """Write what protoc makes of each .proto file, below *target*; return protoc's exit code."""
    from grpc_tools import protoc  # grpcio-tools is a dev extra, absent when serving

    sources = sorted(f"protos/{path.name}" for path in (HOUSE / "protos").glob("*.proto"))
    flags = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    failed = int(protoc.main(["protoc", f"-I{HOUSE}", *flags, *sources]))
    if not failed:
        copy_for_the_client(target)
    return failed


def copy_for_the_client(target: Path) -> None:
    """Write the client's copy of the messages that protoc made below *target*.

    Raises ValueError if protoc's output no longer holds a text that CLIENT_EDITS replaces.
    """
    (target / CLIENT).mkdir(parents=True, exist_ok=True)
    for name in CLIENT_FILES:
        code = (target / "protos" / f"{name}_pb2.py").read_text(encoding="utf-8")
        for old, new in CLIENT_EDITS.items():
            text = old.format(name=name)
            if code.count(text) != 1:
                raise ValueError(
                    f"protoc wrote {text!r} {code.count(text)} times into {name}_pb2.py, not once: "
                    "adapt CLIENT_EDITS in protos/generate.py"
                )
            code = code.replace(text, new.format(name=name))
        types = (target / "protos" / f"{name}_pb2.pyi").read_text(encoding="utf-8")
        (target / CLIENT / f"{name}_pb2.py").write_text(code, encoding="utf-8")
        (target / CLIENT / f"{name}_pb2.pyi").write_text(types, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HOUSE))
