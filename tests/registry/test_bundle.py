"""Tests of version files: every change, exchange or missing file is found and named."""

import errno
import io
import os
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import helper, numpy_helper

from features.canonical import canonical_json, sha256_hex
from registry import bundle, scoring
from registry.types import RegistryFullError, ScoringError, VersionRefusedError
from tests.tiny_models import linear_model, tiny_contract, tiny_files

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = KEY.public_key().public_bytes_raw()


def seal_tiny(files: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """The signed files of a version of `churn` by ann."""
    sealed = bundle.seal_files(
        files or tiny_files(), model="churn", author="ann", created_unix_ms=1
    )
    return {**sealed, "signature.json": bundle.sign_manifest(sealed["manifest.json"], KEY)}


def verified_bundle(files: dict[str, bytes] | None = None) -> bundle.Bundle:
    """The verified bundle of these files."""
    return bundle.verify_bundle(seal_tiny(files), trusted_key=TRUSTED)


def flip_one_bit(content: bytes) -> bytes:
    """The content with one bit in the middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def npz_file(**arrays: np.ndarray) -> bytes:
    """The bytes of an .npz file with these arrays."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


def test_bundle_of_a_sealed_version_verifies_loads_and_scores() -> None:
    """The id is the SHA-256 of the manifest."""
    files = seal_tiny()

    verified = bundle.verify_bundle(
        files, trusted_key=TRUSTED, expected_digest=sha256_hex(files["manifest.json"])
    )
    session = scoring.load_session(verified)

    assert (verified.digest, verified.author) == (sha256_hex(files["manifest.json"]), "ann")
    assert scoring.golden_test(verified, session) <= 1e-5
    scoring.warm_up(verified, session)
    assert verified.reference.score_edges.shape == (19,)
    assert tuple(verified.reference.feature_edges) == verified.contract.names


@pytest.mark.parametrize("name", sorted(seal_tiny()))
@pytest.mark.parametrize(
    "change", [flip_one_bit, lambda c: c[:-1], lambda c: c + b" ", lambda c: c[:0]]
)
def test_bundle_refuses_any_change_to_any_file(name: str, change: Callable[[bytes], bytes]) -> None:
    """A bit is flipped, a byte is missing, a byte is added, or the file is empty."""
    files = seal_tiny()

    with pytest.raises(VersionRefusedError, match=r"manifest\.json|" + name.replace(".", r"\.")):
        bundle.verify_bundle({**files, name: change(files[name])}, trusted_key=TRUSTED)


@pytest.mark.parametrize("name", sorted(seal_tiny()))
def test_bundle_names_a_missing_file(name: str) -> None:
    """Each of the seven files is removed in turn."""
    files = seal_tiny()
    del files[name]

    with pytest.raises(VersionRefusedError, match=name.replace(".", r"\.")):
        bundle.verify_bundle(files, trusted_key=TRUSTED)


@pytest.mark.parametrize(
    "name",
    ["extra.bin", "../model.onnx", "/etc/passwd", "a/b", "..", ".hidden", "", "x\x00y", "a b"],
)
def test_bundle_refuses_an_extra_file(name: str) -> None:
    """Paths, hidden files and plain names are refused before anything is parsed."""
    with pytest.raises(VersionRefusedError, match=r"not a plain name|does not belong"):
        bundle.verify_bundle({**seal_tiny(), name: b"x"}, trusted_key=TRUSTED)


def test_seal_refuses_a_path_as_a_file_name() -> None:
    """A manifest with a path could only be made by sealing."""
    with pytest.raises(VersionRefusedError, match="not a plain name"):
        bundle.seal_files(
            {**tiny_files(), "../x": b""}, model="churn", author="ann", created_unix_ms=1
        )


def test_seal_refuses_the_name_of_a_model() -> None:
    """The reason is the name, not the form of the manifest."""
    with pytest.raises(VersionRefusedError, match=r"must match .*'Churn 2' does not"):
        bundle.seal_files(tiny_files(), model="Churn 2", author="ann", created_unix_ms=1)


def test_bundle_refuses_a_signature_of_another_key() -> None:
    """The reader's key counts, not the key in signature.json."""
    other_key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    files = seal_tiny()
    files["signature.json"] = bundle.sign_manifest(files["manifest.json"], other_key)

    with pytest.raises(VersionRefusedError, match=r"signature\.json is by ed25519 key"):
        bundle.verify_bundle(files, trusted_key=TRUSTED)


def test_bundle_refuses_the_signature_of_another_version() -> None:
    """The key is right, but the manifest is another."""
    files = seal_tiny()
    other = seal_tiny(tiny_files(golden_rows=3))

    with pytest.raises(VersionRefusedError, match="does not sign this"):
        bundle.verify_bundle(
            {**files, "signature.json": other["signature.json"]}, trusted_key=TRUSTED
        )
    with pytest.raises(VersionRefusedError, match="was requested"):
        bundle.verify_bundle(files, trusted_key=TRUSTED, expected_digest="0" * 64)


def test_bundle_refuses_a_large_manifest_before_parsing() -> None:
    """64 KiB and one byte are too large."""
    with pytest.raises(VersionRefusedError, match="has 65537 bytes"):
        bundle.verify_bundle({**seal_tiny(), "manifest.json": b"[" * 65_537}, trusted_key=TRUSTED)


def test_bundle_refuses_a_manifest_that_is_not_canonical() -> None:
    """Otherwise one version could have several ids."""
    files = seal_tiny()

    with pytest.raises(VersionRefusedError, match="not the canonical manifest"):
        bundle.verify_bundle(
            {**files, "manifest.json": files["manifest.json"] + b"\n"}, trusted_key=None
        )


@pytest.mark.parametrize("deep", [b"[" * 60_000, b'{"a":' * 9_000, b"\xff\xfe", b"NaN", b"[1]"])
def test_bundle_refuses_a_hostile_manifest_with_one_kind_of_error(deep: bytes) -> None:
    """Deep nesting, bad UTF-8, NaN and a wrong shape are tried."""
    with pytest.raises(VersionRefusedError, match=r"manifest\.json"):
        bundle.verify_bundle({**seal_tiny(), "manifest.json": deep}, trusted_key=None)


def test_bundle_refuses_a_model_of_another_contract() -> None:
    """The contract in the model's metadata differs from contract.json."""
    other_model = tiny_files(contract=tiny_contract(outputs=("other",)))["model.onnx"]

    with pytest.raises(VersionRefusedError, match=r"model\.onnx was made for contract"):
        scoring.load_session(verified_bundle({**tiny_files(), "model.onnx": other_model}))


@pytest.mark.parametrize(("width", "outputs"), [(4, 1), (3, 2)])
def test_bundle_refuses_a_model_of_another_shape(width: int, outputs: int) -> None:
    """The tensors must have the contract's shapes, even if the metadata fits."""
    metadata = {"turnout.contract": tiny_contract().model_contract}
    model = linear_model(width, outputs, metadata=metadata)

    with pytest.raises(VersionRefusedError, match=r"contract\.json asks for one (input|output)"):
        scoring.load_session(verified_bundle({**tiny_files(), "model.onnx": model}))


def model_with_external_weights(location: str) -> bytes:
    """A model with its weights in another file. They are so large that they are loaded late."""
    weights = numpy_helper.from_array(np.ones((3, 400), np.float32), "weights")
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    model = onnx.load_from_string(tiny_files()["model.onnx"])
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.initializer.extend(
        [weights, numpy_helper.from_array(np.array([1], np.int64), "outputs")]
    )
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["inputs", "weights"], ["wide"]),
            helper.make_node("ReduceSum", ["wide", "outputs"], ["scores"], keepdims=1),
        ]
    )
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/hostname"])
def test_bundle_refuses_a_model_with_external_weights(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file exists in the working directory, and is not read."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for folder in (tmp_path, inside):
        (folder / "weights.bin").write_bytes(np.ones((3, 400), np.float32).tobytes())
    monkeypatch.chdir(inside)

    with pytest.raises(VersionRefusedError, match=r"model\.onnx does not load"):
        scoring.load_session(
            verified_bundle({**tiny_files(), "model.onnx": model_with_external_weights(location)})
        )


def test_bundle_refuses_a_file_of_another_size() -> None:
    """The message has both sizes."""
    files = seal_tiny()

    with pytest.raises(VersionRefusedError, match=r"card\.json has 3 bytes; manifest\.json says"):
        bundle.verify_bundle({**files, "card.json": b"{ }"}, trusted_key=TRUSTED)


def test_golden_test_refuses_other_scores() -> None:
    """A difference of 1e-4 in one of eight rows is too much, and the row is named."""
    verified = verified_bundle()
    session = scoring.load_session(verified)
    expected = verified.golden_outputs.copy()
    expected[5] += 1e-4

    with pytest.raises(VersionRefusedError, match="golden row 5 of 32"):
        scoring.golden_test(replace(verified, golden_outputs=expected), session)


def test_golden_test_accepts_nan_only_where_it_was_certified() -> None:
    """NaN passes if the golden output is NaN as well."""
    without_nan = verified_bundle()
    broken = verified_bundle(tiny_files(nan_when=5.0))
    inputs = without_nan.golden_inputs.copy()
    inputs[2, 0] = 9.0
    expected = broken.golden_outputs.copy()
    expected[2] = np.nan
    with_nan = replace(broken, golden_inputs=inputs, golden_outputs=expected)

    assert scoring.golden_test(with_nan, scoring.load_session(broken)) <= 1e-5
    with pytest.raises(VersionRefusedError, match="golden row 2"):
        scoring.golden_test(with_nan, scoring.load_session(without_nan))


@pytest.mark.parametrize(
    "golden",
    [
        npz_file(inputs=np.zeros((2, 3)), outputs=np.zeros((2, 1))),
        npz_file(inputs=np.zeros((2, 3), "f4"), outputs=np.zeros((3, 1), "f4")),
        npz_file(inputs=np.zeros((0, 3), "f4"), outputs=np.zeros((0, 1), "f4")),
        npz_file(inputs=np.array([{}], dtype=object), outputs=np.zeros((1, 1), "f4")),
        npz_file(inputs=np.zeros((2, 3), "f4")),
        b"PK\x05\x06" + bytes(18),
        b"no zip",
    ],
)
def test_bundle_refuses_golden_rows_that_do_not_fit_the_contract(golden: bytes) -> None:
    """Doubles, other shapes, no rows, pickles and bytes that are no zip are refused."""
    with pytest.raises(VersionRefusedError, match=r"golden\.npz"):
        verified_bundle({**tiny_files(), "golden.npz": golden})


def test_bundle_refuses_a_zip_bomb_before_unpacking() -> None:
    """70 MiB of zeros pack into 70 kB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("inputs.npy", bytes(70 * 2**20))
        archive.writestr("outputs.npy", b"")

    with pytest.raises(VersionRefusedError, match="unpacks to"):
        verified_bundle({**tiny_files(), "golden.npz": stream.getvalue()})


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"score": {"edges": []}, "features": []},
        {"score": {"edges": [2, 1]}, "features": []},
        {"score": {"edges": [1]}, "features": [{"name": "stranger", "edges": []}]},
        {"score": {"edges": [1e300]}, "features": []},
        [],
    ],
)
def test_bundle_refuses_a_reference_that_does_not_fit(reference: object) -> None:
    """No edges, falling edges, infinite edges and other features are refused."""
    with pytest.raises(VersionRefusedError, match=r"reference\.json"):
        verified_bundle({**tiny_files(), "reference.json": canonical_json(reference)})


def test_session_raises_scoring_error_and_scores_the_next_batch() -> None:
    """A row that makes ONNX Runtime fail has no effect on later batches."""
    session = scoring.load_session(verified_bundle(tiny_files(fault_when=5.0)))

    with pytest.raises(ScoringError, match="out of data bounds"):
        session.run(np.array([[1, 1, 1], [6, 0, 0]], dtype=np.float32))
    with pytest.raises(ScoringError, match="ONNX Runtime"):
        session.run(np.zeros((2, 4), dtype=np.float32))
    assert session.run(np.ones((1, 3), dtype=np.float32))[0, 0] == pytest.approx(0.6)


def test_bundle_refuses_a_runtime_that_scores_wrongly() -> None:
    """Only 1.26.0 is refused."""
    scoring.refuse_runtime("1.32.0")
    with pytest.raises(VersionRefusedError, match=r"onnxruntime 1\.26\.0"):
        scoring.refuse_runtime("1.26.0")


def test_version_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    """It replaces an older folder, and leaves no other file."""
    files = seal_tiny()
    folder = tmp_path / "version"

    bundle.write_version_folder(folder, {"old.txt": b"old"})
    bundle.write_version_folder(folder, files)

    assert bundle.read_version_folder(folder) == files
    assert [entry.name for entry in tmp_path.iterdir()] == ["version"]


def test_version_folder_may_be_written_by_many_at_once(tmp_path: Path) -> None:
    """Gateway workers share a disk. The second writer finds the files there."""
    folder, files = tmp_path / "version", seal_tiny()
    together = threading.Barrier(8)

    def write(number: int) -> None:
        for turn in range(5):
            together.wait(10)
            # Now and then another content, so that folders are moved aside under each other.
            bundle.write_version_folder(folder, {**files, "turn.txt": b"%d" % (number * turn % 2)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))

    bundle.write_version_folder(folder, files)
    assert bundle.read_version_folder(folder) == files
    assert [entry.name for entry in tmp_path.iterdir()] == ["version"]


def test_version_folder_is_unchanged_after_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No temporary folder is left, and the error says what to do."""
    folder = tmp_path / "version"
    bundle.write_version_folder(folder, {"old.txt": b"old"})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RegistryFullError, match="Make room"):
            bundle.write_version_folder(folder, seal_tiny())

    assert bundle.read_version_folder(folder) == {"old.txt": b"old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["version"]


def _symlink(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere")


def _fifo(folder: Path) -> None:
    (folder / "card.json").unlink()
    os.mkfifo(folder / "card.json")


def _subfolder(folder: Path) -> None:
    (folder / "more").mkdir()


def _odd_name(folder: Path) -> None:
    (folder / "a b").touch()


def _too_many(folder: Path) -> None:
    for n in range(40):
        (folder / f"f{n}").touch()


@pytest.mark.parametrize("spoil", [_symlink, _fifo, _subfolder, _odd_name, _too_many])
def test_version_folder_with_other_than_plain_files_is_refused(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    """Symlinks, pipes, folders, odd names and too many files are refused, and nothing hangs."""
    folder = tmp_path / "version"
    bundle.write_version_folder(folder, seal_tiny())
    spoil(folder)

    with pytest.raises(VersionRefusedError):
        bundle.read_version_folder(folder)
