"""Files that attack the process that opens them. Each is bounded and harmless outside.

A pickle runs Python as it is opened, so most of them are pickles of a program. A program knows the
`Targets` of the test: what it may reach only if it escapes. What it could read, it raises, because
an error's text is the one thing that leaves the sandbox.
"""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper


@dataclass(frozen=True, slots=True)
class Targets:
    """What a hostile file tries to reach.

    outside       a folder of the test; a file there is the sign of an escape.
    secret_file   holds `secret`, as a key below a home would.
    secret        a token, in the environment of the test too.
    port          of a TCP server on loopback, which counts its connections.
    socket        path of a Unix socket of the same server.
    victim        pid of a process that the test started.
    folder        where the hostile file lies.
    """

    outside: Path
    secret_file: Path
    secret: str
    port: int
    socket: Path
    victim: int
    folder: Path


Build = Callable[[Targets], Path]
"""Writes a file or folder below `folder` and returns its path."""


class RunsProgram:
    """Pickles as a program that runs when it is opened."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, str]]]:
        """Return what unpickling calls: exec of the program, in a module of its own."""
        return exec, (self._program, {"__name__": "hostile"})


def pickled(program: str) -> Build:
    """Return what writes a pickle of *program*, with `{target}` replaced by fields of Targets."""

    def build(targets: Targets) -> Path:
        text = program
        for name in Targets.__slots__:
            text = text.replace(f"<{name}>", str(getattr(targets, name)))
        path = targets.folder / "model.pkl"
        path.write_bytes(pickle.dumps(RunsProgram(text)))
        return path

    return build


def written(name: str, content: bytes) -> Build:
    """Return what writes *content* into a file."""

    def build(targets: Targets) -> Path:
        path = targets.folder / name
        path.write_bytes(content)
        return path

    return build


def _gzip_bomb() -> bytes:
    """Return a gzip file of a pickle with one text of 3 GB, in some 3 MB."""
    head = b"\x80\x04\x8d" + struct.pack("<Q", 3 * 1024**3)
    megabytes = gzip.compress(b"a" * (16 * 1024**2), mtime=0)
    return gzip.compress(head, mtime=0) + megabytes * 192


def _zip_bomb() -> bytes:
    """Return a skops archive whose description has 2 GB."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("schema.json", "w", force_zip64=True) as entry,
    ):
        entry.write(b'{"__class__": "')
        block = b"a" * (16 * 1024**2)
        for _ in range(128):
            entry.write(block)
        entry.write(b'"}')
    return packed.getvalue()


def _zip_slip() -> bytes:
    """Return a skops archive with entries that point out of every folder."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../../../escaped", b"escaped")
        archive.writestr("/escaped", b"escaped")
        schema = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode"}
        schema |= {"content": [], "__id__": 1, "protocol": 2, "_skops_version": "0.16"}
        archive.writestr("schema.json", json.dumps(schema))
    return packed.getvalue()


def _skops_with_code() -> bytes:
    """Return a skops archive that names os.system as a function to be called."""
    packed = io.BytesIO()
    call = {
        "__class__": "system",
        "__module__": "posix",
        "__loader__": "FunctionNode",
        "__id__": 1,
        "content": {"module_path": "os", "function": "system"},
    }
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(
            "schema.json", json.dumps({**call, "protocol": 2, "_skops_version": "0.16"})
        )
    return packed.getvalue()


def _linked(targets: Targets) -> Path:
    """Write a folder of MLflow whose model is a link to the secret."""
    folder = targets.folder / "mlflow"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: model.pkl\n")
    (folder / "model.pkl").symlink_to(targets.secret_file)
    return folder


def _out_of_folder(targets: Targets) -> Path:
    """Write a folder of MLflow whose description names the secret."""
    folder = targets.folder / "mlflow"
    folder.mkdir()
    name = os.path.relpath(targets.secret_file, folder)
    (folder / "MLmodel").write_text(f"flavors:\n  sklearn:\n    pickled_model: {name}\n")
    return folder


def _pipe(targets: Targets) -> Path:
    """Make a FIFO, whose reader waits for ever."""
    path = targets.folder / "model.pkl"
    os.mkfifo(path)
    return path


def _weights_elsewhere(targets: Targets) -> Path:
    """Write an ONNX file whose weights lie in the secret's file."""
    path = targets.folder / "model.onnx"
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 1])
    weights.data_location = TensorProto.EXTERNAL
    location = os.path.relpath(targets.secret_file, path.parent)
    weights.external_data.add(key="location", value=location)
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", rows[:1], rows[1:], [weights])
    path.write_bytes(helper.make_model(graph, ir_version=10).SerializeToString())
    return path


_REPORT_FD = """
import os, struct
def report(data):
    for descriptor in range(3, 32):
        try: os.write(descriptor, data)
        except OSError: pass
"""
"""Writes into the pipe of the report, whose descriptor the program does not know."""

_LIBC = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"

HOSTILE: dict[str, tuple[Build, str]] = {
    # Programs and processes.
    "runs a shell": (
        pickled("import os; os.system('touch <outside>/escaped')\nraise RuntimeError('done')"),
        "RuntimeError: done",
    ),
    "starts a program": (
        pickled("import subprocess; subprocess.run(['/usr/bin/touch', '<outside>/escaped'])"),
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    "becomes a setuid program": (
        pickled("import os; os.execv('/usr/bin/mount', ['mount', '--version'])"),
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    "forks 200 times": (
        pickled(
            "import os, time\nfor _ in range(200):\n"
            "    if os.fork() == 0: open('<outside>/escaped', 'w'); os._exit(0)"
        ),
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    "makes namespaces": (
        pickled(
            _LIBC + "if libc.unshare(0x10000000): raise OSError(ctypes.get_errno(), 'refused')"
        ),
        "PermissionError: [Errno 1] refused",
    ),
    # Other processes.
    "kills another process": (
        pickled("import os; os.kill(<victim>, 9)"),
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    "kills another process by thread": (
        pickled(
            _LIBC + "if libc.syscall(234, <victim>, <victim>, 9): "
            "raise OSError(ctypes.get_errno(), 'refused')"
        ),
        "PermissionError: [Errno 1] refused",
    ),
    "traces another process": (
        pickled(
            _LIBC + "if libc.ptrace(16, <victim>, 0, 0): "
            "raise OSError(ctypes.get_errno(), 'refused')"
        ),
        "PermissionError: [Errno 1] refused",
    ),
    "reads another process": (
        pickled("raise RuntimeError(open('/proc/<victim>/environ').read())"),
        "FileNotFoundError",
    ),
    # The network.
    "connects to a port": (
        pickled("import socket; socket.create_connection(('127.0.0.1', <port>), 2)"),
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    "connects to a Unix socket": (
        pickled("import socket; socket.socket(socket.AF_UNIX).connect('<socket>')"),
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    # Reading.
    "reads the environment": (
        pickled("import os; raise RuntimeError(sorted(os.environ.items()))"),
        "('HOME', '/tmp')",
    ),
    "reads a key in the home": (
        pickled("raise RuntimeError(open('<secret_file>').read())"),
        "FileNotFoundError",
    ),
    "lists the user's home": (
        pickled(
            "import os, pathlib\nraise RuntimeError([str(path) for home in ('/root', '/home', "
            "os.path.expanduser('~')) for path in pathlib.Path(home).glob('.ssh/*')])"
        ),
        "RuntimeError: []",
    ),
    "reads passwords": (pickled("raise RuntimeError(open('/etc/passwd').read())"), "FileNotFound"),
    "a link to a key": (_linked, "mlflow/MLmodel names 'model.pkl'"),
    "a description that names a key": (_out_of_folder, "which is not in the folder"),
    "weights in a key": (_weights_elsewhere, "which is not given"),
    # Writing.
    "writes a file outside": (
        pickled("open('<outside>/escaped', 'w').write('escaped')"),
        "FileNotFoundError",
    ),
    "writes beside the model": (
        pickled("open('/model/escaped', 'w').write('escaped')"),
        "OSError: [Errno 30] Read-only file system",
    ),
    "replaces the model": (
        pickled("open('/model/model.pkl', 'w').write('escaped')"),
        "OSError: [Errno 30] Read-only file system",
    ),
    "writes into an installed package": (
        pickled(
            "import host, pathlib\n"
            "pathlib.Path(host.__file__).with_name('escaped.py').write_text('')"
        ),
        "OSError: [Errno 30] Read-only file system",
    ),
    "fills the temporary folder": (
        pickled(
            "for number in range(100):\n    open(f'/tmp/{number}', 'wb').write(bytes(10_000_000))"
        ),
        "OSError: [Errno 28] No space left on device",
    ),
    "writes one large file": (
        pickled("open('/tmp/large', 'wb').truncate(2_000_000_000)"),
        "OSError: [Errno 27] File too large",
    ),
    "unpacks out of its folder": (written("model.skops", _zip_slip()), "has a list"),
    "calls a function by skops": (written("model.skops", _skops_with_code()), "model.skops"),
    # Memory and time.
    "takes 100 GB": (pickled("bytearray(100_000_000_000)"), "needs more than the 1500 MB"),
    "takes memory bit by bit": (
        pickled("parts = []\nfor _ in range(100): parts.append(bytearray(100_000_000))"),
        "needs more than the 1500 MB",
    ),
    "shares memory that no limit counts": (
        pickled("import os; os.memfd_create('x')"),
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    "sleeps": (pickled("import time; time.sleep(60)"), "not done after 20 s while opening model"),
    "computes for ever": (pickled("while True: pass"), "SIGXCPU while opening model.pkl"),
    "waits for a writer": (_pipe, "is a link or no plain file"),
    "a text of 3 GB in gzip": (written("model.joblib", _gzip_bomb()), "needs more than"),
    "a description of 2 GB in a zip": (written("model.skops", _zip_bomb()), "needs more than"),
    "a text longer than its file": (
        written("model.pkl", b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a"),
        "model.pkl",
    ),
    "prints 1 GB": (
        pickled(
            "import os\nfor _ in range(1000): os.write(1, bytes(1_000_000))\n"
            "raise RuntimeError('printed')"
        ),
        "RuntimeError: printed",
    ),
    # The report.
    "ends before its report": (pickled("import os; os._exit(0)"), "ended with exit code 0 while"),
    "crashes": (pickled("import ctypes; ctypes.string_at(0)"), "ended with SIGSEGV while opening"),
    "writes into the report": (
        pickled(_REPORT_FD + "report(b'x' * 1000); os._exit(0)"),
        "its report is not one that Turnout's code writes",
    ),
    "claims a report of 1 TB": (
        pickled(_REPORT_FD + "report(struct.pack('<cQ', b'A', 2**40)); os._exit(0)"),
        "its report is not one that Turnout's code writes",
    ),
    "writes a report of its own": (
        pickled(
            _REPORT_FD + 'head = b\'{"document": {"onnx": 1}, "arrays": [], "files": []}\'\n'
            "body = struct.pack('<Q', len(head)) + head\n"
            "report(struct.pack('<cQ', b'A', len(body)) + body); os._exit(0)"
        ),
        "the model's code may have written it",
    ),
    "claims a huge array": (
        pickled(
            _REPORT_FD + 'head = b\'{"document": {}, "files": [], "arrays": '
            '[["rows/x", "<f8", [1000000000, 1000000], 8]]}\'\n'
            "body = struct.pack('<Q', len(head)) + head + bytes(8)\n"
            "report(struct.pack('<cQ', b'A', len(body)) + body); os._exit(0)"
        ),
        "an array has another number of bytes",
    ),
    "reports steps for ever": (
        pickled(_REPORT_FD + "for _ in range(5000): report(struct.pack('<cQ', b'S', 1) + b'x')"),
        "more than 1000 steps",
    ),
    "commands the terminal": (
        pickled(r"raise RuntimeError('\x1b]0;owned\x07\x1b[2J')"),
        r"\x1b]0;owned",
    ),
    # Files that are broken on purpose.
    "a truncated pickle": (written("model.pkl", pickle.dumps([1.0] * 100)[:50]), "model.pkl"),
    "a LightGBM file of two milliards of leaves": (
        written(
            "model.txt",
            b"tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
            b"max_feature_idx=0\nobjective=binary sigmoid:1\nfeature_names=a\nfeature_infos=none\n"
            b"tree_sizes=40\n\nTree=0\nnum_leaves=2000000000\nnum_cat=0\n\nend of trees\n",
        ),
        "model.txt",
    ),
    "an XGBoost file nested 100,000 times": (
        written("model.json", b'{"learner": ' + b"[" * 100_000),
        "model.json",
    ),
    "a CatBoost file of noise": (written("model.cbm", b"CBM1" + bytes(range(256))), "model.cbm"),
}
"""What it does -> what writes it, and a part of the sentence that the user gets."""
