"""The loader opens only versions whose files match their id, and else serves the old one."""

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from features.canonical import sha256_hex
from gateway.isolation.breadcrumbs import BreadcrumbPage
from gateway.models.disk_cache import DiskCache
from gateway.models.loader import Loader
from gateway.models.routes import RouteTable
from gateway.settings import Settings
from host.clock import SystemClock
from protos.registry_pb2 import ServingKeys, VersionLoad
from registry.bundle import seal_files, sign_manifest
from registry.signed import SignedDeployment, open_deployment, sign_deployment
from registry.types import Deployment, RegistryUnavailableError
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = SIGNER.public_key().public_bytes_raw()


def signed(files: dict[str, bytes], at: int = 1) -> dict[str, bytes]:
    """Seal and sign a version as the registry does."""
    sealed = seal_files(files, model="churn", author="dana", created_unix_ms=at)
    return {**sealed, "signature.json": sign_manifest(sealed["manifest.json"], SIGNER)}


def saved_deployments(folder: Path) -> list[SignedDeployment]:
    """Return the deployments in a gateway's folder, each of which must have a valid signature."""
    messages = [message for _, message in DiskCache(folder).read_deployments()]
    return [open_deployment(message, TRUSTED) for message in messages]


def digest_of(files: dict[str, bytes]) -> str:
    """Return the version's id."""
    return sha256_hex(files["manifest.json"])


@dataclass
class LoaderFixture:
    """A loader over a folder, with a registry that a test can make unavailable."""

    folder: Path
    registry: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The registry's versions by digest."""
    up: bool = True

    def __post_init__(self) -> None:
        self.route_table = RouteTable()
        self.disk = DiskCache(self.folder)
        self.loader = Loader(
            Settings(),
            self.route_table,
            self.disk,
            self.fetch,
            lambda: TRUSTED,
            SystemClock(),
            lambda: None,
            self.probe,
            BreadcrumbPage(),
        )

    async def probe(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Accept every version; tests/walks/models/test_isolation.py runs real probes."""

    async def fetch(self, model: str, version: str) -> dict[str, bytes]:
        """Return a version's files, as RegistryClient.fetch does."""
        if not self.up:
            raise RegistryUnavailableError("gone")
        assert model == "churn"
        return dict(self.registry[version])

    async def deploy(self, deployment: Deployment) -> None:
        """Deploy and wait until it is applied or refused."""
        self.loader.deploy(sign_deployment(deployment, SIGNER))
        await self.loader.wait_settled()

    def serves(self) -> tuple[str, str]:
        """Return (production, canary) of the routes that serve now."""
        routes = self.route_table.get("churn")
        return (
            ("", "") if routes is None else (routes.deployment.production, routes.deployment.canary)
        )


def deployment(revision: int, registry: dict[str, dict[str, bytes]], **roles: object) -> Deployment:
    """Return a deployment of production "1" and other roles; labels follow the registry's order."""
    labels = {str(n): digest for n, digest in enumerate(registry, 1)}
    base = Deployment(
        model="churn", revision=revision, production="1", digests=tuple(labels.items())
    )
    return replace(base, **roles)  # type: ignore[arg-type]


GOOD, BETTER = signed(tiny_files()), signed(tiny_files(golden_rows=9))


def version_off_its_golden_rows() -> dict[str, bytes]:
    """Return a version whose golden rows promise .001 more than it scores."""
    files = tiny_files()
    golden = dict(np.load(io.BytesIO(files["golden.npz"])))
    buffer = io.BytesIO()
    np.savez(buffer, inputs=golden["inputs"], outputs=golden["outputs"] + np.float32(1e-3))
    return signed({**files, "golden.npz": buffer.getvalue()}, at=2)


def altered(name: str) -> dict[str, bytes]:
    """Return a version with one bit of a file flipped after it was signed."""
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
def test_loader_refuses_a_broken_version_and_keeps_the_old_deployment(
    kind: str, tmp_path: Path
) -> None:
    """Deployed as a canary, it is refused with a reason, and revision 1 stays applied."""
    registry = {digest_of(GOOD): GOOD, digest_of(BETTER): BROKEN[kind]}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, registry)
        await gateway.deploy(deployment(1, registry))
        await gateway.deploy(deployment(2, registry, canary="2", canary_bp=1_000))

        load = gateway.loader.load_states[digest_of(BETTER)]
        assert load.state == VersionLoad.REFUSED
        assert load.reason
        assert gateway.serves() == ("1", "")
        assert gateway.loader.applied["churn"][0] == 1

    asyncio.run(walk())


def test_loader_refuses_a_version_that_misses_its_golden_rows(tmp_path: Path) -> None:
    """Its signature and digests are right, but it scores .001 off its golden rows."""
    wrong = version_off_its_golden_rows()
    registry = {digest_of(GOOD): GOOD, digest_of(wrong): wrong}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, registry)
        await gateway.deploy(deployment(1, registry))
        await gateway.deploy(deployment(2, registry, preload=("2",)))
        assert gateway.loader.load_states[digest_of(wrong)].state == VersionLoad.REFUSED
        assert "golden row" in gateway.loader.load_states[digest_of(wrong)].reason
        assert gateway.serves() == ("1", "")

    asyncio.run(walk())


def test_loader_refuses_to_preload_a_quarantined_version(tmp_path: Path) -> None:
    """Workers died of it, so nothing prepares it. Production is loaded all the same."""
    registry = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, registry)
        for digest in registry:
            gateway.route_table.quarantined[digest] = ("2 workers died while they ran it", 1)
        await gateway.deploy(deployment(1, registry, preload=("2",)))
        load = gateway.loader.load_states[digest_of(BETTER)]
        assert load.state == VersionLoad.REFUSED
        assert load.reason.startswith("it is quarantined on this host: 2 workers died")
        assert gateway.serves() == ("1", "")

    asyncio.run(walk())


def test_loader_serves_the_last_deployment_from_disk_without_the_registry(
    tmp_path: Path,
) -> None:
    """A second worker starts on the same folder without a registry, and serves the canary too."""
    registry = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}
    wanted = deployment(3, registry, canary="2", canary_bp=1_000)

    async def walk() -> None:
        await LoaderFixture(tmp_path, registry).deploy(wanted)
        later = LoaderFixture(tmp_path, {}, up=False)
        (signed_deployment,) = saved_deployments(tmp_path)
        saved = signed_deployment.deployment
        assert saved == wanted
        await later.deploy(saved)
        assert later.serves() == ("1", "2")

    asyncio.run(walk())


def test_loader_moves_a_version_altered_on_disk_and_fetches_it_again(tmp_path: Path) -> None:
    """The copy on disk loses a byte: the registry's is used, and the bad one is moved."""
    registry = {digest_of(GOOD): GOOD}

    async def walk() -> None:
        await LoaderFixture(tmp_path, registry).deploy(deployment(1, registry))
        onnx = tmp_path / "versions" / digest_of(GOOD) / "model.onnx"
        onnx.write_bytes(onnx.read_bytes()[:-1])
        again = LoaderFixture(tmp_path, registry)
        await again.deploy(deployment(1, registry))
        assert again.serves() == ("1", "")
        assert onnx.read_bytes() == GOOD["model.onnx"]
        assert len(list((tmp_path / "versions").glob(".*.refused.*"))) == 1

    asyncio.run(walk())


def test_loader_serves_production_alone_when_the_canary_cannot_be_loaded_at_start(
    tmp_path: Path,
) -> None:
    """The canary is REFUSED, and production serves rather than nothing."""
    registry = {digest_of(GOOD): GOOD, digest_of(BETTER): BROKEN["truncated"]}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, registry)
        await gateway.deploy(deployment(1, registry, canary="2", canary_bp=1_000))
        assert gateway.serves() == ("1", "")
        assert gateway.loader.load_states[digest_of(BETTER)].state == VersionLoad.REFUSED

    asyncio.run(walk())


def test_loader_applies_a_rollback_while_a_version_is_still_fetched(tmp_path: Path) -> None:
    """Revision 2 needs a version that the registry does not send; revision 3 is applied at once."""
    registry = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, registry)
        await gateway.deploy(deployment(1, registry))
        gateway.up = False
        second = deployment(2, registry, canary="2", canary_bp=1_000)
        gateway.loader.deploy(sign_deployment(second, SIGNER))
        await gateway.deploy(replace(deployment(3, registry), digests=(("1", digest_of(GOOD)),)))
        assert gateway.loader.applied["churn"][0] == 3
        assert digest_of(BETTER) not in gateway.loader.load_states

    asyncio.run(walk())


def test_loader_ignores_older_and_repeated_revisions(tmp_path: Path) -> None:
    """After revision 5, revisions 4 and 5 change nothing, in memory or on disk."""
    registry = {digest_of(GOOD): GOOD, digest_of(BETTER): BETTER}

    async def walk() -> None:
        gateway = LoaderFixture(tmp_path, registry)
        await gateway.deploy(deployment(5, registry))
        for revision in (4, 5):
            await gateway.deploy(deployment(revision, registry, canary="2", canary_bp=1))
        assert gateway.serves() == ("1", "")
        assert [saved.deployment.revision for saved in saved_deployments(tmp_path)] == [5]

    asyncio.run(walk())


def test_disk_cache_saves_serving_keys_for_this_user_alone(tmp_path: Path) -> None:
    """The file has mode 0600, and the keys are read back."""
    disk, keys = DiskCache(tmp_path), ServingKeys(prediction_id_key=bytes(32))
    assert disk.read_serving_keys() is None
    disk.save_serving_keys(keys)
    assert disk.read_serving_keys() == keys
    assert (tmp_path / "keys.pb").stat().st_mode & 0o777 == 0o600
