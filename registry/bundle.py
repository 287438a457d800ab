"""A version's files: seal them, prove them, load them, test them. One of the three doors.

The load order is CONTRACTS': size cap, envelope, signature, digests, and only then is anything
parsed; ONNX Runtime gets the very bytes that were proved.
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
"""onnxruntime's own hints do not export what the package exports."""

GOLDEN_TOLERANCE = 1e-5
CONTRACT_PROPERTY = "turnout.contract"
RUNTIMES_REFUSED = {"1.26.0": "it scores forests wrongly (microsoft/onnxruntime#28557)"}
SCORES = ["scores"]
NOWHERE = "/dev/null/nowhere"
"""Where external tensors are looked for: below a file, so that no such folder can ever exist."""


@dataclass(frozen=True, eq=False, slots=True)
class Reference:
    """What the model's inputs and scores looked like when it was certified.

    reference.json: {"score": {"edges": [...]}, "features": [{"name": ..., "edges": [...]}, ...],
    "decision_threshold": 0.5}; whatever else it says stays in *definition*.
    """

    score_edges: NDArray[np.float32]
    """(J - 1,) growing: bin j holds edges[j-1] < score <= edges[j]; J is 20 for trained models."""
    feature_edges: dict[str, NDArray[np.float32]]
    """One (<= 255,) a model input, by ModelContract.names; deciles where there are that many."""
    decision_threshold: float
    definition: dict[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Bundle:
    """A version whose files were proved; nothing here was taken on trust but the key."""

    digest: str
    """The version's id: SHA-256 of manifest.json, hex."""
    model: str
    author: str
    manifest: dict[str, Any]
    contract: ModelContract
    onnx: bytes
    golden_inputs: NDArray[np.float32]
    """(G, F)."""
    golden_outputs: NDArray[np.float32]
    """(G, K)."""
    reference: Reference
    card: dict[str, Any]


class Session:
    """One version in ONNX Runtime: (B, F) float32 in, (B, K) float32 out."""

    def __init__(self, session: Any, width: int, outputs: int) -> None:  # noqa: ANN401  _runtime
        # The package's own wrapper costs 10 us a run in checks of what `load` has checked.
        self._run = getattr(session, "_sess", session).run
        self.width = width
        self.outputs = outputs

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score *matrix* (B, F) float32, C order; returns (B, K) float32.

        Raises ScoringError on whatever ONNX Runtime raises; one bad row fails the whole batch.
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
    """Return *files* with their canonical manifest.json; the version's id is its SHA-256.

    Raises VersionRefusedError when a required file is missing or a name is odd.
    """
    contents = {n: c for n, c in files.items() if n not in (envelope.MANIFEST, envelope.SIGNATURE)}
    manifest = {
        "format": envelope.FORMAT,
        "model": model,
        "author": author,
        "created_unix_ms": created_unix_ms,
        "files": {n: {"sha256": sha256_hex(c), "size": len(c)} for n, c in contents.items()},
    }
    sealed = {**contents, envelope.MANIFEST: canonical_json(manifest)}
    envelope.check_sizes(sealed)
    envelope.check_names(sealed)
    envelope.read_manifest(sealed)
    return sealed


def sign_manifest(manifest: bytes, private_key: Ed25519PrivateKey) -> bytes:
    """Return signature.json for the bytes of a manifest.json."""
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
    """Prove a version's files and read them. VersionRefusedError says which is wrong, and how.

    trusted_key      the registry's Ed25519 public key, 32 raw bytes; None only where nothing is
                     signed yet (before registration) or the id was had from the registry itself.
    expected_digest  the id (hex) this version must have; None: whatever it has.
    """
    envelope.check_sizes(files)
    envelope.check_names(files)
    manifest = envelope.read_manifest(files)
    digest = sha256_hex(files[envelope.MANIFEST])
    if expected_digest is not None and digest != expected_digest:
        raise VersionRefusedError(
            f"{envelope.MANIFEST} is version {digest[:16]}; asked for was {expected_digest[:16]}"
        )
    if trusted_key is not None:
        envelope.check_signature(files, trusted_key)
    envelope.check_digests(files, manifest)
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
        raise VersionRefusedError(f"contract.json does not hold together: {error}") from error


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
            f"reference.json: the edges of {name!r} must be at most 255 finite numbers, growing"
        )
    return edges


def refuse_runtime(version: str) -> None:
    """Raise VersionRefusedError for an ONNX Runtime known to score wrongly."""
    if version in RUNTIMES_REFUSED:
        raise VersionRefusedError(
            f"onnxruntime {version} is installed, and {RUNTIMES_REFUSED[version]}; install another"
        )


def load_session(bundle: Bundle, *, threads: int = 1) -> Session:
    """Load the proved bytes into ONNX Runtime.

    threads  inside one run. One by default: calls are many and rows few (research: spinning pools
             of several sessions fight over the cores).

    Raises VersionRefusedError when the file does not load, reaches outside itself, or is not
    `inputs` float32 (B, F) to `scores` float32 (B, K) under the contract beside it.
    """
    refuse_runtime(onnxruntime.__version__)
    options = _runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.graph_optimization_level = _runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # a faulting canary must not fill the log; ScoringError tells
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Loaded from bytes, ONNX Runtime would look for external tensors in the working directory.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", NOWHERE
    )
    try:
        session = _runtime.InferenceSession(
            bundle.onnx, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise VersionRefusedError(f"model.onnx does not load: {error}") from error
    promised = session.get_modelmeta().custom_metadata_map.get(CONTRACT_PROPERTY, "")
    if promised != bundle.contract.model_contract:
        raise VersionRefusedError(
            f"model.onnx was made for contract {promised[:16] or 'none'!r}; contract.json is "
            f"{bundle.contract.model_contract[:16]!r}"
        )
    width, outputs = bundle.contract.width, len(bundle.contract.outputs)
    _check_tensors("input", session.get_inputs(), "inputs", width)
    _check_tensors("output", session.get_outputs(), "scores", outputs)
    return Session(session, width, outputs)


def _check_tensors(kind: str, tensors: Sequence[Any], name: str, width: int) -> None:
    said = [(t.name, t.type, list(t.shape)) for t in tensors]
    fits = len(said) == 1 and said[0][:2] == (name, "tensor(float)") and len(said[0][2]) == 2
    if not fits or isinstance(said[0][2][0], int) or said[0][2][1] != width:
        raise VersionRefusedError(
            f"model.onnx has {kind} {said}; contract.json asks for one, {name!r} float32 "
            f"[None, {width}]"
        )


def golden_test(bundle: Bundle, session: Session) -> float:
    """Score the golden rows here and now; returns the largest difference, at most 1e-5.

    Raises VersionRefusedError beyond it, or where one side is NaN or infinite and the other not.
    """
    try:
        scores = session.run(bundle.golden_inputs)
    except ScoringError as error:
        raise VersionRefusedError(f"golden.npz cannot be scored: {error}") from error
    # Equal first: inf - inf is NaN, and two NaN are as promised.
    with np.errstate(invalid="ignore"):
        off = np.abs(scores.astype(np.float64) - bundle.golden_outputs)
    off[
        (scores == bundle.golden_outputs) | (np.isnan(scores) & np.isnan(bundle.golden_outputs))
    ] = 0
    worst = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
    if not off.flat[worst] <= GOLDEN_TOLERANCE:
        row = worst // session.outputs
        raise VersionRefusedError(
            f"golden row {row} of {len(scores)} scores {scores.flat[worst]} here, and "
            f"{bundle.golden_outputs.flat[worst]} when certified; {GOLDEN_TOLERANCE} apart is the "
            f"most. onnxruntime {onnxruntime.__version__} or this file is not the certified one"
        )
    return float(off.flat[worst])


def warm_up(bundle: Bundle, session: Session, rows: Sequence[int] = (1, 2, 8, 64, 256)) -> None:
    """Run batches of these sizes once, on golden rows, so that no caller pays for the first."""
    for count in rows:
        session.run(np.resize(bundle.golden_inputs, (count, session.width)))


def read_version_folder(path: Path) -> dict[str, bytes]:
    """Return a version folder's files. VersionRefusedError on links, odd names and sizes."""
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if not names or len(names) > envelope.FILES_MAX:
        raise VersionRefusedError(
            f"{path.name} is no folder of 1 to {envelope.FILES_MAX} files ({len(names)})"
        )
    envelope.check_names(dict.fromkeys(names))
    files: dict[str, bytes] = {}
    left = envelope.TOTAL_BYTES_MAX
    for name in names:
        files[name] = read_version_file(path / name, left)
        left -= len(files[name])
    return files


def write_version_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make *path* hold exactly *files*, whole or not at all (temporary folder, fsync, rename)."""
    envelope.check_sizes(files)
    envelope.check_names(files)
    replace_version_folder(path, files)
