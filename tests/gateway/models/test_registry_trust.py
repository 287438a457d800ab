"""A worker accepts one key, what it has signed and newer revisions, and says what it refuses."""

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.models.disk_cache import DiskCache
from gateway.models.registry_trust import RegistryTrust
from protos.registry_pb2 import RegistryAlarm, ServingKeys
from protos.registry_pb2 import SignedDeployment as SignedMessage
from registry.signed import sign_deployment
from registry.types import Deployment

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
SEVENTH = Deployment(model="churn", revision=7, production="1", digests=(("1", "ab" * 32),))


def keys_of(signer: Ed25519PrivateKey) -> ServingKeys:
    """Return the keys that a registry with this signing key sends."""
    public = signer.public_key().public_bytes_raw()
    return ServingKeys(prediction_id_key=bytes(32), version_public_key=public)


def signed(deployment: Deployment, signer: Ed25519PrivateKey = SIGNER) -> SignedMessage:
    """Return the message of a deployment."""
    return sign_deployment(deployment, signer).message


@dataclass
class TrustFixture:
    """The trust of one worker over a gateway's folder."""

    folder: Path
    pinned: bytes | None = None
    refusals: "Counter[str]" = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.disk = DiskCache(self.folder)
        self.trust = RegistryTrust(
            self.pinned, self.disk, lambda kind: self.refusals.update([kind])
        )

    def receive(self, *messages: SignedMessage, known: Deployment | None = None) -> list[int]:
        """Receive a snapshot; return the revisions that are accepted."""
        targets = {} if known is None else {known.model: known}
        opened = self.trust.open_received(messages, targets, snapshot=True)
        return [accepted.deployment.revision for accepted in opened]

    def kinds(self) -> list[str]:
        """Return the kinds of the present alarms."""
        return [RegistryAlarm.Kind.Name(alarm.kind) for alarm in self.trust.alarms]


def test_first_key_is_kept_and_a_change_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after a restart, and the log has the alarm once."""
    first = TrustFixture(tmp_path)
    assert first.trust.key is None
    assert first.trust.accept_keys(keys_of(SIGNER))
    again = TrustFixture(tmp_path)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert not again.trust.accept_keys(keys_of(STRANGER))
    assert (again.kinds(), again.refusals["KEY_CHANGED"]) == (["KEY_CHANGED"], 3)
    assert len(caplog.records) == 1
    assert "set version_public_key" in caplog.text
    assert DiskCache(tmp_path).read_serving_keys() == keys_of(SIGNER)
    # The registry is back.
    assert again.trust.accept_keys(keys_of(SIGNER))
    assert again.kinds() == []


def test_another_worker_may_have_pinned_the_key(tmp_path: Path) -> None:
    """Two workers that start without a key cannot pin two keys."""
    one, two = TrustFixture(tmp_path), TrustFixture(tmp_path)
    assert one.trust.accept_keys(keys_of(SIGNER))
    assert not two.trust.accept_keys(keys_of(STRANGER))


def test_setting_overrules_the_key_on_disk(tmp_path: Path) -> None:
    """An operator changes the key by the setting; deployments under the old key are refused."""
    old = TrustFixture(tmp_path)
    old.trust.accept_keys(keys_of(STRANGER))
    stranger_key = keys_of(STRANGER).version_public_key
    old.disk.save_deployment(sign_deployment(SEVENTH, STRANGER), stranger_key)
    new = TrustFixture(tmp_path, pinned=keys_of(SIGNER).version_public_key)
    assert new.trust.open_saved() == []
    assert not new.trust.accept_keys(keys_of(STRANGER))
    assert new.trust.accept_keys(keys_of(SIGNER))
    # The new registry's revision 1 replaces what the old one had under 7, in memory and on disk.
    first = sign_deployment(replace(SEVENTH, revision=1), SIGNER)
    assert new.receive(first.message) == [1]
    assert new.trust.key is not None
    new.disk.save_deployment(first, new.trust.key)
    assert [s.deployment.revision for s in TrustFixture(tmp_path).trust.open_saved()] == [1]


@pytest.mark.parametrize(
    "message",
    [
        signed(replace(SEVENTH, revision=10**9), STRANGER),
        SignedMessage(content=signed(SEVENTH).content),
        SignedMessage(),
    ],
    ids=["another key", "unsigned", "empty"],
)
def test_deployment_that_the_key_has_not_signed_is_refused(
    message: SignedMessage, tmp_path: Path
) -> None:
    """It is counted, the good one beside it is taken, and the alarm ends with the next snapshot."""
    worker = TrustFixture(tmp_path)
    worker.trust.accept_keys(keys_of(SIGNER))
    credit = replace(SEVENTH, model="credit")
    assert worker.receive(message, signed(credit)) == [7]
    assert (worker.kinds(), worker.refusals["DEPLOYMENT_REFUSED"]) == (["DEPLOYMENT_REFUSED"], 1)
    assert worker.receive(signed(SEVENTH)) == [7]
    assert worker.kinds() == []


@pytest.mark.parametrize("alteration", ["bit", "cut", "0.1.0"])
def test_deployment_altered_on_disk_is_refused_and_replaced(
    alteration: str, tmp_path: Path
) -> None:
    """So is an unsigned one of 0.1.0. The registry's next one is written over it."""
    worker = TrustFixture(tmp_path)
    worker.trust.accept_keys(keys_of(SIGNER))
    key = keys_of(SIGNER).version_public_key
    worker.disk.save_deployment(sign_deployment(SEVENTH, SIGNER), key)
    file = tmp_path / "deployments" / "churn.signed"
    content = bytearray(file.read_bytes())
    if alteration == "bit":
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    elif alteration == "cut":
        file.write_bytes(bytes(content[:-1]))
    else:
        file.unlink()
        file.with_suffix(".pb").write_bytes(SEVENTH.to_proto().SerializeToString())
    again = TrustFixture(tmp_path)
    assert again.trust.open_saved() == []
    (alarm,) = again.trust.alarms
    assert (alarm.kind, alarm.model) == (RegistryAlarm.DEPLOYMENT_REFUSED, "churn")
    # The registry still has the same revision, and that is taken.
    assert again.receive(signed(SEVENTH)) == [7]
    assert again.kinds() == []
    again.disk.save_deployment(sign_deployment(SEVENTH, SIGNER), key)
    assert [s.deployment for s in TrustFixture(tmp_path).trust.open_saved()] == [SEVENTH]
    assert [path.name for path in file.parent.iterdir()] == ["churn.signed"]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([replace(SEVENTH, revision=3)], "the older revision 3"),
        ([replace(SEVENTH, production="2")], "another deployment under revision 7"),
        ([], "the older revision 0"),
    ],
    ids=["older", "another", "missing"],
)
def test_registry_behind_the_worker_raises_an_alarm(
    sent: list[Deployment], words: str, tmp_path: Path
) -> None:
    """A registry that was restored from a copy changes nothing, until it is above the worker."""
    worker = TrustFixture(tmp_path)
    worker.trust.accept_keys(keys_of(SIGNER))
    assert worker.receive(*map(signed, sent), known=SEVENTH) == []
    (alarm,) = worker.trust.alarms
    assert (alarm.kind, alarm.model, alarm.revision) == (RegistryAlarm.REVISION_BEHIND, "churn", 7)
    assert words in alarm.reason
    assert "turnout splits republish churn" in alarm.reason
    assert worker.receive(signed(replace(SEVENTH, revision=8)), known=SEVENTH) == [8]
    assert worker.kinds() == []


def test_same_snapshot_again_is_no_alarm(tmp_path: Path) -> None:
    """The registry sends everything at each connection."""
    worker = TrustFixture(tmp_path)
    worker.trust.accept_keys(keys_of(SIGNER))
    assert worker.receive(signed(SEVENTH), known=SEVENTH) == []
    assert worker.kinds() == []


def test_stream_that_ended_in_the_handshake_raises_an_alarm(tmp_path: Path) -> None:
    """An ordinary end does not, and the next proven registry ends it."""
    worker = TrustFixture(tmp_path)
    worker.trust.note_stream_error(None)
    worker.trust.note_stream_error(ConnectionError("connection refused"))
    assert worker.kinds() == []
    worker.trust.note_stream_error(
        ConnectionError("Tls handshake failed: CERTIFICATE_VERIFY_FAILED")
    )
    assert worker.kinds() == ["PEER_NOT_PROVEN"]
    worker.trust.accept_keys(keys_of(SIGNER))
    assert worker.kinds() == []
