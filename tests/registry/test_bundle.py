"""A version is its bytes: whatever was changed, swapped or left out is found and named."""

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
from registry import bundle
from registry.types import RegistryFullError, ScoringError, VersionRefusedError
from tests.tiny_models import linear_model, tiny_contract, tiny_files

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = KEY.public_key().public_bytes_raw()


def seal_tiny(files: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """A signed version of `churn` by ann."""
    sealed = bundle.seal_files(
        files or tiny_files(), model="churn", author="ann", created_unix_ms=1
    )
    return {**sealed, "signature.json": bundle.sign_manifest(sealed["manifest.json"], KEY)}


def verified(files: dict[str, bytes] | None = None) -> bundle.Bundle:
    """The same, proved."""
    return bundle.verify_bundle(seal_tiny(files), trusted_key=TRUSTED)


def flip(content: bytes) -> bytes:
    """One bit changed, in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def npz(**arrays: np.ndarray) -> bytes:
    """golden.npz as given."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


def test_a_sealed_version_verifies_loads_and_scores_its_golden_rows() -> None:
    """The id is the SHA-256 of the manifest; the golden rows come out as promised."""
    files = seal_tiny()

    proved = bundle.verify_bundle(
        files, trusted_key=TRUSTED, expected_digest=sha256_hex(files["manifest.json"])
    )
    session = bundle.load_session(proved)

    assert (proved.digest, proved.author) == (sha256_hex(files["manifest.json"]), "ann")
    assert bundle.golden_test(proved, session) <= 1e-5
    bundle.warm_up(proved, session)
    assert proved.reference.score_edges.shape == (19,)
    assert tuple(proved.reference.feature_edges) == proved.contract.names


@pytest.mark.parametrize("name", sorted(seal_tiny()))
@pytest.mark.parametrize("change", [flip, lambda c: c[:-1], lambda c: c + b" ", lambda c: c[:0]])
def test_any_change_to_any_file_is_refused(name: str, change: Callable[[bytes], bytes]) -> None:
    """One bit, one byte less, one more, nothing left: the version never becomes a Bundle."""
    files = seal_tiny()

    with pytest.raises(VersionRefusedError, match=r"manifest\.json|" + name.replace(".", r"\.")):
        bundle.verify_bundle({**files, name: change(files[name])}, trusted_key=TRUSTED)


@pytest.mark.parametrize("name", sorted(seal_tiny()))
def test_a_missing_file_is_named(name: str) -> None:
    """Each of the seven, the signature included."""
    files = seal_tiny()
    del files[name]

    with pytest.raises(VersionRefusedError, match=name.replace(".", r"\.")):
        bundle.verify_bundle(files, trusted_key=TRUSTED)


@pytest.mark.parametrize(
    "name",
    ["extra.bin", "../model.onnx", "/etc/passwd", "a/b", "..", ".hidden", "", "x\x00y", "a b"],
)
def test_an_extra_file_is_refused_whatever_its_name(name: str) -> None:
    """Paths, hidden files and plain strangers alike, before anything is parsed."""
    with pytest.raises(VersionRefusedError, match=r"not a plain name|does not belong"):
        bundle.verify_bundle({**seal_tiny(), name: b"x"}, trusted_key=TRUSTED)


def test_a_manifest_cannot_list_a_path_either() -> None:
    """Sealing is where such a version would be made."""
    with pytest.raises(VersionRefusedError, match="not a plain name"):
        bundle.seal_files(
            {**tiny_files(), "../x": b""}, model="churn", author="ann", created_unix_ms=1
        )


def test_another_key_is_refused_even_when_it_signs_correctly() -> None:
    """The key that counts is the reader's, not the one in signature.json."""
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    files = seal_tiny()
    files["signature.json"] = bundle.sign_manifest(files["manifest.json"], stranger)

    with pytest.raises(VersionRefusedError, match=r"signature\.json is by ed25519 key"):
        bundle.verify_bundle(files, trusted_key=TRUSTED)


def test_a_signature_of_another_version_is_refused() -> None:
    """Right key, wrong manifest."""
    files = seal_tiny()
    other = seal_tiny(tiny_files(golden_rows=3))

    with pytest.raises(VersionRefusedError, match="does not sign this"):
        bundle.verify_bundle(
            {**files, "signature.json": other["signature.json"]}, trusted_key=TRUSTED
        )
    with pytest.raises(VersionRefusedError, match="asked for was"):
        bundle.verify_bundle(files, trusted_key=TRUSTED, expected_digest="0" * 64)


def test_too_large_is_refused_before_it_is_read() -> None:
    """A manifest of 64 KiB and a byte is not even parsed."""
    with pytest.raises(VersionRefusedError, match="has 65537 bytes"):
        bundle.verify_bundle({**seal_tiny(), "manifest.json": b"[" * 65_537}, trusted_key=TRUSTED)


def test_a_manifest_in_another_spelling_is_refused() -> None:
    """One meaning, one spelling: else one version would have many ids."""
    files = seal_tiny()

    with pytest.raises(VersionRefusedError, match="not the canonical manifest"):
        bundle.verify_bundle(
            {**files, "manifest.json": files["manifest.json"] + b"\n"}, trusted_key=None
        )


@pytest.mark.parametrize("deep", [b"[" * 60_000, b'{"a":' * 9_000, b"\xff\xfe", b"NaN", b"[1]"])
def test_a_hostile_manifest_is_refused_in_words(deep: bytes) -> None:
    """Nesting, bad UTF-8, NaN, the wrong shape: one kind of error, never another."""
    with pytest.raises(VersionRefusedError, match=r"manifest\.json"):
        bundle.verify_bundle({**seal_tiny(), "manifest.json": deep}, trusted_key=None)


def test_a_model_of_another_contract_is_refused_at_load() -> None:
    """The file says what it was made for; the contract beside it says otherwise."""
    stranger = tiny_files(contract=tiny_contract(outputs=("other",)))["model.onnx"]

    with pytest.raises(VersionRefusedError, match=r"model\.onnx was made for contract"):
        bundle.load_session(verified({**tiny_files(), "model.onnx": stranger}))


@pytest.mark.parametrize(("width", "outputs"), [(4, 1), (3, 2)])
def test_a_model_of_another_shape_is_refused_at_load(width: int, outputs: int) -> None:
    """The tensors must be what the contract promises, even when the metadata matches."""
    metadata = {"turnout.contract": tiny_contract().model_contract}
    model = linear_model(width, outputs, metadata=metadata)

    with pytest.raises(VersionRefusedError, match=r"contract\.json asks for one"):
        bundle.load_session(verified({**tiny_files(), "model.onnx": model}))


def reaching_model(where: str) -> bytes:
    """A model whose weights lie in the file *where*: so large that ONNX Runtime loads them late."""
    weights = numpy_helper.from_array(np.ones((3, 400), np.float32), "weights")
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=where)
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


@pytest.mark.parametrize("where", ["weights.bin", "../weights.bin", "/etc/hostname"])
def test_a_model_may_not_reach_outside_itself(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a tensor that does lie in the working directory is not read."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for folder in (tmp_path, inside):
        (folder / "weights.bin").write_bytes(np.ones((3, 400), np.float32).tobytes())
    monkeypatch.chdir(inside)

    with pytest.raises(VersionRefusedError, match=r"model\.onnx does not load"):
        bundle.load_session(verified({**tiny_files(), "model.onnx": reaching_model(where)}))


def test_a_file_of_another_size_is_refused_by_its_size() -> None:
    """Before it is hashed; both sizes are in the message."""
    files = seal_tiny()

    with pytest.raises(VersionRefusedError, match=r"card\.json has 3 bytes; manifest\.json says"):
        bundle.verify_bundle({**files, "card.json": b"{ }"}, trusted_key=TRUSTED)


def test_scores_off_their_golden_rows_are_refused() -> None:
    """1e-4 on one row of eight is enough, and the row is named."""
    proved = verified()
    session = bundle.load_session(proved)
    expected = proved.golden_outputs.copy()
    expected[5] += 1e-4

    with pytest.raises(VersionRefusedError, match="golden row 5 of 8"):
        bundle.golden_test(replace(proved, golden_outputs=expected), session)


def test_nan_must_match_nan() -> None:
    """Where NaN was certified, NaN passes; where it was not, it does not."""
    sound = verified()
    broken = verified(tiny_files(nan_when=5.0))
    poisoned = sound.golden_inputs.copy()
    poisoned[2, 0] = 9.0
    expected = broken.golden_outputs.copy()
    expected[2] = np.nan
    with_nan = replace(broken, golden_inputs=poisoned, golden_outputs=expected)

    assert bundle.golden_test(with_nan, bundle.load_session(broken)) <= 1e-5
    with pytest.raises(VersionRefusedError, match="golden row 2"):
        bundle.golden_test(with_nan, bundle.load_session(sound))


@pytest.mark.parametrize(
    "golden",
    [
        npz(inputs=np.zeros((2, 3)), outputs=np.zeros((2, 1))),
        npz(inputs=np.zeros((2, 3), "f4"), outputs=np.zeros((3, 1), "f4")),
        npz(inputs=np.zeros((0, 3), "f4"), outputs=np.zeros((0, 1), "f4")),
        npz(inputs=np.array([{}], dtype=object), outputs=np.zeros((1, 1), "f4")),
        npz(inputs=np.zeros((2, 3), "f4")),
        b"PK\x05\x06" + bytes(18),
        b"no zip",
    ],
)
def test_golden_rows_that_are_not_float32_of_the_contract_are_refused(golden: bytes) -> None:
    """Doubles, other shapes, none at all, pickles, no zip."""
    with pytest.raises(VersionRefusedError, match=r"golden\.npz"):
        verified({**tiny_files(), "golden.npz": golden})


def test_a_zip_that_unpacks_to_a_gigabyte_is_refused_unopened() -> None:
    """70 MiB of zeros pack into 70 kB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("inputs.npy", bytes(70 * 2**20))
        archive.writestr("outputs.npy", b"")

    with pytest.raises(VersionRefusedError, match="unpacks to"):
        verified({**tiny_files(), "golden.npz": stream.getvalue()})


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
def test_a_reference_that_does_not_fit_is_refused(reference: object) -> None:
    """No edges, edges that fall, features of another model."""
    with pytest.raises(VersionRefusedError, match=r"reference\.json"):
        verified({**tiny_files(), "reference.json": canonical_json(reference)})


def test_a_row_that_faults_is_a_scoring_error_and_the_next_batch_is_fine() -> None:
    """The fault stays with its batch."""
    session = bundle.load_session(verified(tiny_files(fault_when=5.0)))

    with pytest.raises(ScoringError, match="out of data bounds"):
        session.run(np.array([[1, 1, 1], [6, 0, 0]], dtype=np.float32))
    with pytest.raises(ScoringError, match="ONNX Runtime"):
        session.run(np.zeros((2, 4), dtype=np.float32))
    assert session.run(np.ones((1, 3), dtype=np.float32))[0, 0] == pytest.approx(0.6)


def test_a_runtime_known_to_score_wrongly_is_refused() -> None:
    """1.26.0, and no other."""
    bundle.refuse_runtime("1.32.0")
    with pytest.raises(VersionRefusedError, match=r"onnxruntime 1\.26\.0"):
        bundle.refuse_runtime("1.26.0")


def test_a_folder_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Twice over the same place, too; nothing else is left beside it."""
    files = seal_tiny()
    folder = tmp_path / "version"

    bundle.write_version_folder(folder, {"old.txt": b"old"})
    bundle.write_version_folder(folder, files)

    assert bundle.read_version_folder(folder) == files
    assert [entry.name for entry in tmp_path.iterdir()] == ["version"]


def test_many_may_write_one_folder_at_once(tmp_path: Path) -> None:
    """Gateway workers share a disk: whoever comes second finds it done, nobody fails."""
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


def test_a_full_disk_leaves_a_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old files stand, nothing lies beside them, and the error says what to do."""
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
def test_a_folder_with_anything_but_plain_files_is_refused(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    """Symlinks, pipes (without hanging), folders, odd names, too many."""
    folder = tmp_path / "version"
    bundle.write_version_folder(folder, seal_tiny())
    spoil(folder)

    with pytest.raises(VersionRefusedError):
        bundle.read_version_folder(folder)
