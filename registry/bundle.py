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
from registry.types import VersionRefusedError


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
    tolerance: ScoreTolerance | None
    """How exact its scores are, as its card states. None: as versions that state nothing."""


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
        reference=_read_reference(files["reference.json"], contract),
        card=card,
        tolerance=read_tolerance(card, outputs),
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

    digest  the version's id, by which manifest.json and contract.json are proven.

    Raises VersionRefusedError when one of them is not as it was registered.
    """
    content = read_version_file(path / envelope.MANIFEST, envelope.MANIFEST_BYTES_MAX)
    contract = read_version_file(path / "contract.json", envelope.TOTAL_BYTES_MAX)
    manifest = envelope.read_json(envelope.MANIFEST, content)
    if sha256_hex(content) != digest or (
        sha256_hex(contract) != manifest["files"]["contract.json"]["sha256"]
    ):
        raise VersionRefusedError(f"contract.json of version {digest[:16]} was changed")
    return [(use.view.name, use.view.view_hash) for use in _read_contract(contract).views]


def write_version_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder *path* hold exactly *files*. A crash leaves the old folder or the new one."""
    envelope.check_sizes(files)
    envelope.check_names(files)
    replace_version_folder(path, files)
