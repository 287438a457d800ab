"""The files of a version: sealing, signing, verifying, loading into ONNX Runtime, golden test.

Other rooms may import this module, registry.client and registry.types. The order of the checks is
fixed: sizes, names, manifest, signature, digests. Only then are the other files parsed, and ONNX
Runtime loads exactly the bytes that were verified.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from features.contract import ModelContract
from registry import manifest as envelope
from registry.folders import read_version_file, replace_version_folder
from registry.golden import read_golden
from registry.types import ScoringError, VersionRefusedError

_runtime: Any = onnxruntime
"""onnxruntime as Any, because its type hints lack names that the package has."""

GOLDEN_TOLERANCE = 1e-5
CONTRACT_PROPERTY = "turnout.contract"
RUNTIMES_REFUSED = {"1.26.0": "it scores forests wrongly (microsoft/onnxruntime#28557)"}
SCORES = ["scores"]
NOWHERE = "/dev/null/nowhere"
"""Where ONNX Runtime looks for external tensors: a folder below a file, which cannot exist."""


@dataclass(frozen=True, eq=False, slots=True)
class Reference:
    """The bin edges of a version's scores and inputs on its training data.

    It is read from reference.json: {"score": {"edges": [...]}, "features": [{"name": ...,
    "edges": [...]}, ...], "decision_threshold": 0.5}.
    """

    score_edges: NDArray[np.float32]
    """(J - 1,), not falling: bin j has edges[j-1] < score <= edges[j]. J = 20 after training."""
    feature_edges: dict[str, NDArray[np.float32]]
    """Model input, as in ModelContract.names -> at most 255 edges. Trained models have deciles."""
    decision_threshold: float
    definition: dict[str, Any]
    """The whole content of reference.json."""


@dataclass(frozen=True, eq=False, slots=True)
class Bundle:
    """The parsed files of a version after `verify_bundle`."""

    digest: str
    """The version's id: the SHA-256 of manifest.json, in hex."""
    model: str
    author: str
    manifest: dict[str, Any]
    contract: ModelContract
    onnx: bytes
    golden_inputs: NDArray[np.float32]
    """(G, F) rows of model inputs."""
    golden_outputs: NDArray[np.float32]
    """(G, K) scores that the golden rows must have."""
    reference: Reference
    card: dict[str, Any]


class Session:
    """A version that is loaded in ONNX Runtime: (B, F) float32 in, (B, K) float32 out."""

    def __init__(self, session: Any, width: int, outputs: int) -> None:  # noqa: ANN401  _runtime
        # The package's Python wrapper would repeat checks of `load_session`, for 10 us a run.
        self._run = getattr(session, "_sess", session).run
        self.width = width
        self.outputs = outputs

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score *matrix*, (B, F) float32 in C order, and return (B, K) float32.

        Raises ScoringError for any error of ONNX Runtime. One bad row fails the whole batch.
        """
        try:
            scores: NDArray[np.float32] = self._run(SCORES, {"inputs": matrix}, None)[0]
        except Exception as error:
            raise ScoringError(f"ONNX Runtime: {error}") from error
        if scores.shape != (len(matrix), self.outputs):
            raise ScoringError(
                f"{len(matrix)} rows in, scores {scores.shape} out; the contract promises "
                f"({len(matrix)}, {self.outputs})"
            )
        return scores


def seal_files(
    files: Mapping[str, bytes], *, model: str, author: str, created_unix_ms: int
) -> dict[str, bytes]:
    """Return *files* with a canonical manifest.json, whose SHA-256 is the version's id.

    Raises VersionRefusedError when a required file is missing, a name is not allowed, or the files
    are too large.
    """
    contents = {
        name: content
        for name, content in files.items()
        if name not in (envelope.MANIFEST, envelope.SIGNATURE)
    }
    manifest = {
        "format": envelope.FORMAT,
        "model": model,
        "author": author,
        "created_unix_ms": created_unix_ms,
        "files": {
            name: {"sha256": sha256_hex(content), "size": len(content)}
            for name, content in contents.items()
        },
    }
    sealed = {**contents, envelope.MANIFEST: canonical_json(manifest)}
    envelope.check_sizes(sealed)
    envelope.check_names(sealed)
    envelope.read_manifest(sealed)
    return sealed


def sign_manifest(manifest: bytes, private_key: Ed25519PrivateKey) -> bytes:
    """Return the content of signature.json for the bytes of a manifest.json."""
    return canonical_json(
        {
            "algorithm": "ed25519",
            "public_key": private_key.public_key().public_bytes_raw().hex(),
            "signature": private_key.sign(hashlib.sha256(manifest).digest()).hex(),
        }
    )


def verify_bundle(
    files: Mapping[str, bytes], *, trusted_key: bytes | None, expected_digest: str | None = None
) -> Bundle:
    """Check the files of a version and parse them.

    trusted_key      the registry's Ed25519 public key, 32 bytes. None leaves out the signature
                     check: before registration, or when the id came from the registry itself.
    expected_digest  the id (hex) that the version must have; None accepts any.

    Raises VersionRefusedError, which names the file and what is wrong with it.
    """
    # Nothing is parsed before the manifest, and nothing else before signature and digests.
    envelope.check_sizes(files)
    envelope.check_names(files)
    manifest = envelope.read_manifest(files)
    digest = sha256_hex(files[envelope.MANIFEST])
    if expected_digest is not None and digest != expected_digest:
        raise VersionRefusedError(
            f"{envelope.MANIFEST} is version {digest[:16]}; {expected_digest[:16]} was requested"
        )
    if trusted_key is not None:
        envelope.check_signature(files, trusted_key)
    envelope.check_digests(files, manifest)
    # The bytes are the author's. Parse them.
    contract = _read_contract(files["contract.json"])
    inputs, outputs = read_golden(files["golden.npz"], contract.width, len(contract.outputs))
    card = envelope.read_json("card.json", files["card.json"])
    if not isinstance(card, dict):
        raise VersionRefusedError("card.json is not a JSON object")
    return Bundle(
        digest=digest,
        model=manifest["model"],
        author=manifest["author"],
        manifest=manifest,
        contract=contract,
        onnx=files["model.onnx"],
        golden_inputs=inputs,
        golden_outputs=outputs,
        reference=_read_reference(files["reference.json"], contract),
        card=card,
    )


def _read_contract(content: bytes) -> ModelContract:
    try:
        return ModelContract.from_definition(envelope.read_json("contract.json", content))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VersionRefusedError(f"contract.json contradicts itself: {error}") from error


def _read_reference(content: bytes, contract: ModelContract) -> Reference:
    definition = envelope.read_json("reference.json", content)
    try:
        reference = Reference(
            score_edges=_edges("score", definition["score"]["edges"]),
            feature_edges={
                item["name"]: _edges(item["name"], item["edges"]) for item in definition["features"]
            },
            decision_threshold=float(definition.get("decision_threshold", 0.5)),
            definition=definition,
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise VersionRefusedError(f"reference.json is not a reference: {error!r}") from error
    if len(reference.score_edges) == 0 or tuple(reference.feature_edges) != contract.names:
        raise VersionRefusedError(
            f"reference.json has {len(reference.score_edges)} score edges and the features "
            f"{list(reference.feature_edges)[:3]}...; it must have score edges, and the "
            f"{contract.width} inputs of contract.json in order: {list(contract.names)[:3]}..."
        )
    return reference


def _edges(name: str, values: Sequence[float]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        edges = np.array(values, dtype=np.float64).astype(np.float32)
    if (
        edges.ndim != 1
        or len(edges) > 255
        or not np.isfinite(edges).all()
        or np.any(edges[1:] < edges[:-1])
    ):
        raise VersionRefusedError(
            f"reference.json: the edges of {name!r} must be at most 255 finite numbers that do "
            "not fall"
        )
    return edges


def refuse_runtime(version: str) -> None:
    """Raise VersionRefusedError for an ONNX Runtime version that scores wrongly."""
    if version in RUNTIMES_REFUSED:
        raise VersionRefusedError(
            f"onnxruntime {version} is installed, and {RUNTIMES_REFUSED[version]}; install another "
            "version"
        )


def load_session(bundle: Bundle, *, threads: int = 1) -> Session:
    """Load the verified bytes of a version into ONNX Runtime.

    threads  threads within one run. The default is 1, because calls are many and rows are few, and
             the spinning thread pools of several sessions would compete for the cores.

    Raises VersionRefusedError when the model does not load, refers to other files, or does not map
    `inputs` float32 (B, F) to `scores` float32 (B, K) under its contract.
    """
    refuse_runtime(onnxruntime.__version__)
    # Load without spinning, without external files and without a memory arena.
    options = _runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.graph_optimization_level = _runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # A canary that fails must not fill the log. ScoringError has the message.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime would look for external tensors in the working directory.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", NOWHERE
    )
    try:
        session = _runtime.InferenceSession(
            bundle.onnx, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise VersionRefusedError(f"model.onnx does not load: {error}") from error
    # The model must have been converted for the contract beside it, and have its shapes.
    stated = session.get_modelmeta().custom_metadata_map.get(CONTRACT_PROPERTY, "")
    if stated != bundle.contract.model_contract:
        raise VersionRefusedError(
            f"model.onnx was made for contract {stated[:16] or 'none'!r}; contract.json is "
            f"{bundle.contract.model_contract[:16]!r}"
        )
    width, outputs = bundle.contract.width, len(bundle.contract.outputs)
    _check_tensors("input", session.get_inputs(), "inputs", width)
    _check_tensors("output", session.get_outputs(), "scores", outputs)
    return Session(session, width, outputs)


def _check_tensors(kind: str, tensors: Sequence[Any], name: str, width: int) -> None:
    present = [(tensor.name, tensor.type, list(tensor.shape)) for tensor in tensors]
    fits = (
        len(present) == 1 and present[0][:2] == (name, "tensor(float)") and len(present[0][2]) == 2
    )
    # The first dimension is the batch size, which must not be fixed.
    if not fits or isinstance(present[0][2][0], int) or present[0][2][1] != width:
        raise VersionRefusedError(
            f"model.onnx has {kind} {present}; contract.json asks for one {kind} {name!r}, float32 "
            f"[None, {width}]"
        )


def golden_test(bundle: Bundle, session: Session) -> float:
    """Score the golden rows in this process and return the largest difference, at most 1e-5.

    Raises VersionRefusedError when a score differs by more, or when only one of the two scores is
    NaN or infinite.
    """
    try:
        scores = session.run(bundle.golden_inputs)
    except ScoringError as error:
        raise VersionRefusedError(f"golden.npz cannot be scored: {error}") from error
    # Equal scores differ by 0, also if both are infinite (inf - inf is NaN) or both are NaN.
    with np.errstate(invalid="ignore"):
        differences = np.abs(scores.astype(np.float64) - bundle.golden_outputs)
    differences[
        (scores == bundle.golden_outputs) | (np.isnan(scores) & np.isnan(bundle.golden_outputs))
    ] = 0
    worst = int(np.argmax(np.nan_to_num(differences, nan=np.inf)))
    if not differences.flat[worst] <= GOLDEN_TOLERANCE:
        row = worst // session.outputs
        raise VersionRefusedError(
            f"golden row {row} of {len(scores)} scores {scores.flat[worst]} here, and "
            f"{bundle.golden_outputs.flat[worst]} when certified; the difference may be at most "
            f"{GOLDEN_TOLERANCE}. onnxruntime {onnxruntime.__version__} or this file is not the "
            "certified one"
        )
    return float(differences.flat[worst])


def warm_up(bundle: Bundle, session: Session, rows: Sequence[int] = (1, 2, 8, 64, 256)) -> None:
    """Score batches of these sizes once, on golden rows, because the first run is slow."""
    for count in rows:
        session.run(np.resize(bundle.golden_inputs, (count, session.width)))


def read_version_folder(path: Path) -> dict[str, bytes]:
    """Return the files of a version folder by name.

    Raises VersionRefusedError for links, names that are not allowed, and too many or too large
    files.
    """
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if not names or len(names) > envelope.FILES_MAX:
        raise VersionRefusedError(
            f"{path.name} is no folder of 1 to {envelope.FILES_MAX} files; it has {len(names)}"
        )
    envelope.check_names(dict.fromkeys(names))
    files: dict[str, bytes] = {}
    bytes_left = envelope.TOTAL_BYTES_MAX
    for name in names:
        files[name] = read_version_file(path / name, bytes_left)
        bytes_left -= len(files[name])
    return files


def write_version_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder *path* hold exactly *files*. A crash leaves the old folder or the new one."""
    envelope.check_sizes(files)
    envelope.check_names(files)
    replace_version_folder(path, files)
