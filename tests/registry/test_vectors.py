"""Tests of the committed vectors, which implementations in any language must match."""

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from journal import prediction_id
from journal.score_code import ScoreRule
from protos import registry_pb2 as pb
from registry.bundle import seal_files, sign_manifest
from registry.history.chain import entry_digest, verify_chain
from registry.manifest import check_signature
from registry.types import evidence_key, holdout_bucket, shadow_bucket, split_bucket

VECTORS = Path(__file__).parents[1] / "vectors"


def read_vectors(name: str) -> dict[str, Any]:
    """The content of one vector file."""
    return dict(json.loads((VECTORS / f"{name}.json").read_text()))


def test_split_hashes_have_the_values_of_the_vectors() -> None:
    """Empty, UTF-8 and 1 kB keys under three salts."""
    cases = read_vectors("split_hashes")["cases"]
    for case in cases:
        salt, key = bytes.fromhex(case["salt"]), bytes.fromhex(case["key"])
        version = bytes.fromhex(case["version_id"])
        assert split_bucket(salt, key) == case["split"]
        assert shadow_bucket(salt, version, key) == case["shadow"]
        assert holdout_bucket(salt, key) == case["holdout"]
        assert f"{evidence_key(salt, key):016x}" == case["evidence"]
    assert {0, 1_000} <= {len(case["key"]) // 2 // 1_000 * 1_000 for case in cases}


def test_prediction_ids_have_the_bytes_of_the_vectors() -> None:
    """Fields have their smallest and their largest values."""
    stored = read_vectors("prediction_id")
    key = bytes.fromhex(stored["key"])
    for case in stored["cases"]:
        fields = {
            "role": case["role"] | (prediction_id.HOLDOUT_BIT if case["holdout"] else 0),
            "slot": case["slot"],
            "sequence": case["sequence"],
            "model_hash": prediction_id.hash_model_name(case["model"]),
            "version": bytes.fromhex(case["version"]),
            "revision": int(case["revision"]),
            "at_ms": int(case["at_ms"]),
            "key_hash": int(case["key_hash"], 16),
            "boot_id": int(case["boot_id"], 16),
            "rows": case["rows"],
        }
        rule = ScoreRule(case["probability"], case["threshold"])
        for name, sealed in (("id", False), ("sealed", True)):
            written = prediction_id.write_prediction_id(
                key, sealed=sealed, score=case["score"], rule=rule, **fields
            )
            assert written.hex() == case[name]
            parsed = prediction_id.read_prediction_id(bytes.fromhex(case[name]), key)
            assert (parsed.role, parsed.holdout) == (case["role"], case["holdout"])
            assert (parsed.score, parsed.positive) == (case["read_score"], case["positive"])
            for field in fields.keys() - {"role"}:
                assert getattr(parsed, field) == fields[field]


def test_prediction_ids_of_older_releases_are_read_for_ever() -> None:
    """An outcome may come a year after its prediction; such an id says nothing of the score."""
    stored = read_vectors("prediction_id")
    key = bytes.fromhex(stored["key"])
    for case in stored["scoreless"]:
        for name in ("id", "sealed"):
            parsed = prediction_id.read_prediction_id(bytes.fromhex(case[name]), key)
            assert (parsed.role, parsed.holdout) == (case["role"], case["holdout"])
            assert (parsed.rows, parsed.score, parsed.positive) == (None, None, None)
            assert parsed.model_hash == prediction_id.hash_model_name(case["model"])
            assert parsed.version.hex() == case["version"]
            assert (parsed.slot, parsed.sequence) == (case["slot"], case["sequence"])
            assert (parsed.revision, parsed.at_ms) == (int(case["revision"]), int(case["at_ms"]))
            assert f"{parsed.key_hash:016x}" == case["key_hash"]
            assert f"{parsed.boot_id:016x}" == case["boot_id"]


def test_manifest_and_signature_have_the_bytes_of_the_vectors() -> None:
    """Equal files give equal manifests and signatures."""
    stored = read_vectors("manifest")
    files = {name: bytes.fromhex(content) for name, content in stored["files"].items()}
    sealed = seal_files(
        files,
        model=stored["model"],
        author=stored["author"],
        created_unix_ms=stored["created_unix_ms"],
    )
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(stored["private_key"]))
    signature = sign_manifest(sealed["manifest.json"], key)

    assert sealed["manifest.json"].decode() == stored["manifest"]
    assert json.loads(signature)["signature"] == stored["signature"]
    check_signature({**sealed, "signature.json": signature}, bytes.fromhex(stored["public_key"]))


def test_history_entries_have_the_digests_of_the_vectors() -> None:
    """The chain of the entries and its head are valid."""
    stored = read_vectors("history")
    hexed = ("previous", "digest", "signature", "public_key")
    entries = []
    for item in stored["entries"]:
        fields: dict[str, Any] = {k: bytes.fromhex(v) if k in hexed else v for k, v in item.items()}
        del fields["hashed"]
        entries.append(pb.HistoryEntry(**fields))
        assert entry_digest(entries[-1]).hex() == item["digest"]
    head: dict[str, Any] = {
        k: bytes.fromhex(v) if k in hexed else v for k, v in stored["head"].items()
    }

    assert verify_chain(entries, pb.SignedHead(**head), head["public_key"]) is None
