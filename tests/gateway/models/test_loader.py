"""A version becomes READY only when it is what its id says; whatever served before serves on."""

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from features.canonical import sha256_hex
from gateway.clock import SystemClock
from gateway.isolation.breadcrumbs import BreadcrumbPage
from gateway.models.disk_cache import DiskCache
from gateway.models.loader import Loader
from gateway.models.routes import RouteTable
from gateway.settings import Settings
from protos.registry_pb2 import ServingKeys, VersionLoad
from registry.bundle import seal_files, sign_manifest
from registry.types import Deployment, RegistryUnavailableError
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = SIGNER.public_key().public_bytes_raw()


def signed(files: dict[str, bytes], at: int = 1) -> dict[str, bytes]:
    """Seal and sign a version as the registry does."""
    sealed = seal_files(files, model="churn", author="dana", created_unix_ms=at)
    return {**sealed, "signature.json": sign_manifest(sealed["manifest.json"], SIGNER)}


def digest_of(files: dict[str, bytes]) -> str:
    """The version's id."""
    return sha256_hex(files["manifest.json"])


@dataclass
class Gateway:
    """A loader over a folder, and a registry that can be taken away."""

    folder: Path
    shelf: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """What the registry has, by digest."""
    up: bool = True

    def __post_init__(self) -> None:
        self.deployed = RouteTable()
        self.loader = Loader(
            Settings(),
            self.deployed,
            DiskCache(self.folder),
            self.fetch,
            lambda: TRUSTED,
            SystemClock(),
            lambda: None,
            self.probe,
            BreadcrumbPage(),
        )

    async def probe(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Prove nothing; tests/walks/models/test_isolation.py runs real probes."""

    async def fetch(self, model: str, version: str) -> dict[str, bytes]:
        """As RegistryClient.fetch."""
        if not self.up:
            raise RegistryUnavailableError("gone")
        assert model == "churn"
        return dict(self.shelf[version])

    async def obey(self, deployment: Deployment) -> None:
        """Obey and wait."""
        self.loader.deploy(deployment)
        await self.loader.wait_settled()

    def serves(self) -> tuple[str, str]:
        """(production, canary) of this moment."""
        routes = self.deployed.get("churn")
        return (
            ("", "") if routes is None else (routes.deployment.production, routes.deployment.canary)
        )


def deployment(revision: int, shelf: dict[str, dict[str, bytes]], **roles: object) -> Deployment:
    """Production "1" and whatever else; labels are the shelf's order."""
    labels = {str(n): digest for n, digest in enumerate(shelf, 1)}
    base = Deployment(
        model="churn", revision=revision, production="1", digests=tuple(labels.items())
    )
    return replace(base, **roles)  # type: ignore[arg-type]


GOOD, BETTER = signed(tiny_files()), signed(tiny_files(golden_rows=9))


def golden_off() -> dict[str, bytes]:
    """A version whose golden rows promise .001 more than it scores."""
    files = tiny_files()
    golden = dict(np.load(io.BytesIO(files["golden.npz"])))
    buffer = io.BytesIO()
    np.savez(buffer, inputs=golden["inputs"], outputs=golden["outputs"] + np.float32(1e-3))
    return signed({**files, "golden.npz": buffer.getvalue()}, at=2)


def altered(name: str) -> dict[str, bytes]:
    """A version with one bit of one file flipped after it was signed."""
    content = bytearray(BETTER[name])
    content[len(content) // 2] ^= 1
    return {**BETTER, name: bytes(content)}


BROKEN = {
    "truncated": {**BETTER, "model.onnx": BETTER["model.onnx"][:-20]},
    "altered model": altered("model.onnx"),
    "altered golden rows": altered("golden.npz"),
    "altered manifest": altered("manifest.json"),
    "altered signature": altered("signature.json"),
    "unsigned": {k: v for k, v in BETTER.items() if k != "signature.json"},
    "an extra file": {**BETTER, "extra.bin": b"x"},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_version_is_refused_and_the_old_one_serves(kind: str, tmp_path: Path) -> None:
    """As canary: refused with a reason that is said, revision 1 stays in force."""
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BROKEN[kind]}

    async def walk() -> None:
        gateway = Gateway(tmp_path, shelf)
        await gateway.obey(deployment(1, shelf))
        await gateway.obey(deployment(2, shelf, canary="2", canary_bp=1_000))

        held = gateway.loader.load_states[digest_of(BETTER)]
        assert held.state == VersionLoad.REFUSED
        assert held.reason
        assert gateway.serves() == ("1", "")
        assert gateway.loader.applied["churn"][0] == 1

    asyncio.run(walk())


def test_a_version_off_its_golden_rows_is_refused(tmp_path: Path) -> None:
    """Signed and whole, but it scores .001 off what was certified."""
    off = golden_off()
    shelf = {digest_of(GOOD): GOOD, digest_of(off): off}

    async def walk() -> None:
        gateway = Gateway(tmp_path, shelf)
        await gateway.obey(deployment(1, shelf))
        await gateway.obey(deployment(2, shelf, preload=("2",)))
        assert gateway.loader.load_states[digest_of(off)].state == VersionLoad.REFUSED
        assert "golden row" in gateway.loader.load_states[digest_of(off)].reason
        assert gateway.serves() == ("1", "")

    asyncio.run(walk())


def test_the_last_good_deployment_is_served_from_disk_with_the_registry_gone(
    tmp_path: Path,
) -> None:
    """A second worker starts on the same folder without a registry: same versions, canary too."""
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}
    wanted = deployment(3, shelf, canary="2", canary_bp=1_000)

    async def walk() -> None:
        await Gateway(tmp_path, shelf).obey(wanted)
        later = Gateway(tmp_path, {}, up=False)
        (kept,) = DiskCache(tmp_path).read_deployments()
        assert kept == wanted
        await later.obey(kept)
        assert later.serves() == ("1", "2")

    asyncio.run(walk())


def test_a_version_altered_on_disk_is_set_aside_and_fetched_anew(tmp_path: Path) -> None:
    """The copy on disk loses a byte: the registry's is used, the bad one kept for a look."""
    shelf = {digest_of(GOOD): GOOD}

    async def walk() -> None:
        await Gateway(tmp_path, shelf).obey(deployment(1, shelf))
        onnx = tmp_path / "versions" / digest_of(GOOD) / "model.onnx"
        onnx.write_bytes(onnx.read_bytes()[:-1])
        again = Gateway(tmp_path, shelf)
        await again.obey(deployment(1, shelf))
        assert again.serves() == ("1", "")
        assert onnx.read_bytes() == GOOD["model.onnx"]
        assert len(list((tmp_path / "versions").glob(".*.refused.*"))) == 1

    asyncio.run(walk())


def test_a_worker_that_starts_with_a_canary_it_cannot_load_serves_production_alone(
    tmp_path: Path,
) -> None:
    """Nothing served before: production is better than nothing, and the canary is said REFUSED."""
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BROKEN["truncated"]}

    async def walk() -> None:
        gateway = Gateway(tmp_path, shelf)
        await gateway.obey(deployment(1, shelf, canary="2", canary_bp=1_000))
        assert gateway.serves() == ("1", "")
        assert gateway.loader.load_states[digest_of(BETTER)].state == VersionLoad.REFUSED

    asyncio.run(walk())


def test_a_rollback_does_not_wait_for_a_version_that_is_still_coming(tmp_path: Path) -> None:
    """Revision 2 wants a version the registry does not give; revision 3 is applied at once."""
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}

    async def walk() -> None:
        gateway = Gateway(tmp_path, shelf)
        await gateway.obey(deployment(1, shelf))
        gateway.up = False
        gateway.loader.deploy(deployment(2, shelf, canary="2", canary_bp=1_000))
        await gateway.obey(replace(deployment(3, shelf), digests=(("1", digest_of(GOOD)),)))
        assert gateway.loader.applied["churn"][0] == 3
        assert digest_of(BETTER) not in gateway.loader.load_states

    asyncio.run(walk())


def test_older_and_repeated_revisions_change_nothing(tmp_path: Path) -> None:
    """Revision 5, then 4 and 5 again: 5 stays, in memory and on disk."""
    shelf = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}

    async def walk() -> None:
        gateway = Gateway(tmp_path, shelf)
        await gateway.obey(deployment(5, shelf))
        for revision in (4, 5):
            await gateway.obey(deployment(revision, shelf, canary="2", canary_bp=1))
        assert gateway.serves() == ("1", "")
        assert [kept.revision for kept in DiskCache(tmp_path).read_deployments()] == [5]

    asyncio.run(walk())


def test_keys_are_kept_for_this_user_alone(tmp_path: Path) -> None:
    """Mode 0600, and read back."""
    disk, keys = DiskCache(tmp_path), ServingKeys(prediction_id_key=bytes(32))
    assert disk.read_serving_keys() is None
    disk.save_serving_keys(keys)
    assert disk.read_serving_keys() == keys
    assert (tmp_path / "keys.pb").stat().st_mode & 0o777 == 0o600
