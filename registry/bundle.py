"""The files of a version: sealing, signing, verifying. Nothing here opens the ONNX file.

The order of the checks is fixed: sizes, names, manifest, signature, digests. Only then are the
other files parsed. registry.scoring opens the ONNX file, from exactly the bytes that were verified.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from features.contract import ModelContract
from registry import manifest as envelope
from registry.folders import read_version_file, replace_version_folder
from registry.golden import ScoreTolerance, read_golden, read_tolerance
from registry.types import MODEL_NAME, VersionRefusedError
from stats.score_scale import (
    BINS_MAX,
    MAGNITUDE_MAX,
    SPREAD_MIN,
    TASKS,
    OutputReference,
    ScoreScale,
)


@dataclass(frozen=True, eq=False, slots=True)
class Reference:
    """The task, bins and units of a version's scores and inputs, as in reference.json.

    {"score": {"edges": [...]}, "features": [{"name": ..., "edges": [...]}, ...],
    "decision_threshold": 0.5, "task": "multiclass", "outputs": [{"name": ..., "edges": [...],
    "spread": 1, "center": 0}, ...]}. Versions of releases that judged the first output only have no
    task and no outputs.
    """

    task: str
    """One of stats.score_scale.TASKS."""
    scale: ScoreScale
    """How scores are compared."""
    score_edges: NDArray[np.float32]
    """(J - 1,), not falling: bin j of the first output has edges[j-1] < score <= edges[j]."""
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
    tolerance: ScoreTolerance | None
    """How exact its scores are, as its card states. None: as versions that state nothing."""


def seal_files(
    files: Mapping[str, bytes], *, model: str, author: str, created_unix_ms: int
) -> dict[str, bytes]:
    """Return *files* with a canonical manifest.json, whose SHA-256 is the version's id.

    Raises VersionRefusedError when a required file is missing, a name is not allowed, or the files
    are too large.
    """
    if not MODEL_NAME.fullmatch(model):
        raise VersionRefusedError(
            f"the name of a model must match {MODEL_NAME.pattern}; {model!r} does not"
        )
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
    envelope.check_envelope(sealed)
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
    manifest, digest = envelope.check_envelope(files)
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
        reference=read_reference(files["reference.json"], contract),
        card=card,
        tolerance=read_tolerance(card, outputs),
    )


def _read_contract(content: bytes) -> ModelContract:
    try:
        return ModelContract.from_definition(envelope.read_json("contract.json", content))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VersionRefusedError(f"contract.json contradicts itself: {error}") from error


def read_reference(content: bytes, contract: ModelContract) -> Reference:
    """Return what reference.json says of a version with *contract*.

    Raises VersionRefusedError if it is malformed or does not fit the contract.
    """
    definition = envelope.read_json("reference.json", content)
    try:
        score_edges = _edges("score", definition["score"]["edges"])
        feature_edges = {
            item["name"]: _edges(item["name"], item["edges"]) for item in definition["features"]
        }
        threshold = float(definition.get("decision_threshold", 0.5))
        task, outputs = _task_and_outputs(definition, contract, score_edges)
        reference = Reference(
            task=task,
            scale=ScoreScale(outputs, task, threshold),
            score_edges=score_edges,
            feature_edges=feature_edges,
            decision_threshold=threshold,
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


def _task_and_outputs(
    definition: dict[str, Any], contract: ModelContract, score_edges: NDArray[np.float32]
) -> tuple[str, list[OutputReference]]:
    """Return the task and outputs that are stated, or what they are where none is stated."""
    # Older releases state neither.
    names = contract.outputs
    if "task" not in definition and "outputs" not in definition:
        return _unstated_outputs(names, score_edges)
    # Both are stated.
    task, stated = definition["task"], definition["outputs"]
    if task not in TASKS:
        raise VersionRefusedError(
            f"reference.json has the task {str(task)[:40]!r}; a task is one of {', '.join(TASKS)}"
        )
    if task == "multiclass" and len(names) < 2:
        raise VersionRefusedError(
            "reference.json has the task 'multiclass', and contract.json has one output; a class "
            "needs an output of its own"
        )
    outputs = [_output(item) for item in stated]
    if tuple(output.name for output in outputs) != names:
        raise VersionRefusedError(
            f"reference.json has the outputs {[output.name for output in outputs][:3]}...; those "
            f"of contract.json are {list(names)[:3]}..., in this order"
        )
    size = ScoreScale(outputs, task, 0.5).size
    if size > BINS_MAX:
        raise VersionRefusedError(
            f"reference.json has {size} bins over all outputs, of at most {BINS_MAX}; give the "
            "outputs fewer edges, and those that are rarely predicted the edges null"
        )
    return task, outputs


def _unstated_outputs(
    names: tuple[str, ...], score_edges: NDArray[np.float32]
) -> tuple[str, list[OutputReference]]:
    """Return the task and outputs of a version that states none.

    Several outputs are taken for the probabilities of classes: no decision that differs is then
    missed, and values in the thousands are held, because they differ by more than 1.
    """
    if len(names) == 1:
        return "binary", [OutputReference(names[0], score_edges, spread=1.0)]
    # The first output keeps its bins. The others have one each, as far as there is room.
    first = score_edges if len(score_edges) + len(names) <= BINS_MAX else score_edges[:0]
    own = BINS_MAX - 1 if len(names) > BINS_MAX else BINS_MAX
    none = np.zeros(0, dtype=np.float32)
    edges = [first, *([none] * (own - 1)), *([None] * len(names))]
    return "multiclass", [
        OutputReference(name, output_edges, spread=1.0)
        for name, output_edges in zip(names, edges, strict=False)
    ]


def _output(item: dict[str, Any]) -> OutputReference:
    name, spread, center = item["name"], float(item["spread"]), float(item.get("center", 0.0))
    if not SPREAD_MIN <= spread <= MAGNITUDE_MAX or not abs(center) <= MAGNITUDE_MAX:
        raise VersionRefusedError(
            f"reference.json: output {name!r} has the spread {spread:g} and the center {center:g}; "
            f"a spread is a number from {SPREAD_MIN:g} to {MAGNITUDE_MAX:g}, a center at most that "
            "far from 0"
        )
    edges = item["edges"]
    return OutputReference(name, None if edges is None else _edges(name, edges), spread, center)


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


def read_views(path: Path, digest: str) -> list[tuple[str, str]]:
    """Return (name, hash) of each view that the version in a folder reads.

    digest  the version's id, by which the files are proven.

    Raises VersionRefusedError when one of them is not as it was registered.
    """
    (contract,) = _proven_files(path, digest, "contract.json")
    return [(use.view.name, use.view.view_hash) for use in _read_contract(contract).views]


def read_scale(path: Path, digest: str) -> ScoreScale:
    """Return the task and outputs of the version in a folder. *digest* and errors as above."""
    contract, reference = _proven_files(path, digest, "contract.json", "reference.json")
    return read_reference(reference, _read_contract(contract)).scale


def _proven_files(path: Path, digest: str, *names: str) -> list[bytes]:
    manifest_bytes = read_version_file(path / envelope.MANIFEST, envelope.MANIFEST_BYTES_MAX)
    manifest = envelope.read_json(envelope.MANIFEST, manifest_bytes)
    contents = [read_version_file(path / name, envelope.TOTAL_BYTES_MAX) for name in names]
    for name, content in zip(names, contents, strict=True):
        if sha256_hex(manifest_bytes) != digest or (
            sha256_hex(content) != manifest["files"][name]["sha256"]
        ):
            raise VersionRefusedError(f"{name} of version {digest[:16]} was changed")
    return contents


def write_version_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder *path* hold exactly *files*. A crash leaves the old folder or the new one."""
    envelope.check_sizes(files)
    envelope.check_names(files)
    replace_version_folder(path, files)
