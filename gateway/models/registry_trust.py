"""What a worker accepts from the registry: one key, what that key has signed, newer revisions.

Everything else is refused with an alarm, which is in the log, on /metrics and in the state that the
worker reports. What the worker has serves on. The way out of each alarm is in its reason, and no
alarm makes the worker accept anything: a false registry can raise one and do no more.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from gateway.models.disk_cache import DiskCache
from protos.registry_pb2 import RegistryAlarm, ServingKeys
from protos.registry_pb2 import SignedDeployment as SignedMessage
from registry.signed import SignedDeployment, open_deployment
from registry.types import Deployment, DeploymentError

log = logging.getLogger(__name__)

PEER_NOT_PROVEN = RegistryAlarm.PEER_NOT_PROVEN
KEY_CHANGED = RegistryAlarm.KEY_CHANGED
DEPLOYMENT_REFUSED = RegistryAlarm.DEPLOYMENT_REFUSED
REVISION_BEHIND = RegistryAlarm.REVISION_BEHIND
HANDSHAKE_FAILED = "andshake failed"
"""What gRPC's messages about a server with another certificate, or without TLS, have in common."""


class RegistryTrust:
    """The pinned key of one worker, and its alarms.

    pinned_key  the setting version_public_key, 32 bytes; None: the key on disk, or else the first
                that comes, which is then kept on disk.
    on_refused  called with the name of an alarm's kind at each refusal.
    """

    def __init__(
        self, pinned_key: bytes | None, disk: DiskCache, on_refused: Callable[[str], None]
    ) -> None:
        self._pinned_key = pinned_key
        self._disk = disk
        self._on_refused = on_refused
        self._alarms: dict[tuple[RegistryAlarm.Kind, str], RegistryAlarm] = {}
        self.keys = disk.read_serving_keys()
        """The cluster's keys that were accepted last; None before the first."""

    @property
    def key(self) -> bytes | None:
        """The key that must have signed every version and deployment; None before the first."""
        if self._pinned_key is not None:
            return self._pinned_key
        return (self.keys.version_public_key or None) if self.keys is not None else None

    @property
    def alarms(self) -> Sequence[RegistryAlarm]:
        """What is refused at present."""
        return tuple(self._alarms.values())

    def accept_keys(self, keys: ServingKeys) -> bool:
        """Keep the registry's *keys* and return True, unless its version key has changed."""
        self._clear(PEER_NOT_PROVEN)
        # Another worker of this host may have been first.
        self.keys = self.keys or self._disk.read_serving_keys()
        if self.key is not None and keys.version_public_key != self.key:
            where = "version_public_key" if self._pinned_key is not None else "keys.pb"
            self._raise(
                KEY_CHANGED,
                f"the registry's version key is {keys.version_public_key.hex()[:16]}, and "
                f"{self.key.hex()[:16]} is pinned by {where}; nothing of it is accepted. If this "
                "registry is a new one, take its key on its own host (turnout audit verify) and "
                "set version_public_key",
            )
            return False
        self._clear(KEY_CHANGED)
        self.keys = keys
        try:
            self._disk.save_serving_keys(keys)
        except OSError as error:  # the keys are in use; a full disk must not stop rollouts
            log.warning("not_saved keys error=%s", error)
        return True

    def open_saved(self) -> list[SignedDeployment]:
        """Return the deployments on disk that the pinned key has signed."""
        opened = [
            self._open(message, model, "on disk: ")
            for model, message in self._disk.read_deployments()
        ]
        return [signed for signed in opened if signed is not None]

    def open_received(
        self, messages: Sequence[SignedMessage], known: Mapping[str, Deployment], *, snapshot: bool
    ) -> list[SignedDeployment]:
        """Return the deployments of one event that are signed and newer than the worker's.

        known     model -> the newest deployment that the worker has.
        snapshot  the event has the deployment of every model.
        """
        if snapshot:
            self._clear(DEPLOYMENT_REFUSED)
        received = {}
        for message in messages:
            signed = self._open(message, "", "")
            if signed is not None:
                received[signed.deployment.model] = signed
                self._clear(DEPLOYMENT_REFUSED, signed.deployment.model)
        # Compare with what the worker has. In a snapshot, a model that is missing counts too.
        for model in known if snapshot else received:
            sent = received[model].deployment if model in received else Deployment(model=model)
            self._compare(sent, known.get(model))
        return [
            signed
            for model, signed in received.items()
            if model not in known or signed.deployment.revision > known[model].revision
        ]

    def note_stream_error(self, error: BaseException | None) -> None:
        """Raise an alarm if the server at the registry's address could not prove itself."""
        if error is not None and HANDSHAKE_FAILED in str(error):
            self._raise(
                PEER_NOT_PROVEN,
                "the server at the registry's address has not the certificate in "
                "registry_certificate, and got no token. If the registry has a new one, copy its "
                f"keys/control.crt: {error}",
            )

    def _open(self, message: SignedMessage, model: str, where: str) -> SignedDeployment | None:
        try:
            if self.key is None:
                raise DeploymentError("no version key is known yet")  # noqa: TRY301  handled below
            return open_deployment(message, self.key)
        except DeploymentError as error:
            self._raise(
                DEPLOYMENT_REFUSED,
                f"{where}{error}; what serves goes on, and the next one that the registry has "
                "signed is taken",
                model,
            )
            return None

    def _compare(self, sent: Deployment, known: Deployment | None) -> None:
        if known is None or sent.revision > known.revision or sent == known:
            self._clear(REVISION_BEHIND, sent.model)
            return
        what = "another deployment under" if sent.revision == known.revision else "the older"
        self._raise(
            REVISION_BEHIND,
            f"the registry has {what} revision {sent.revision} of {sent.model!r}, and revision "
            f"{known.revision} (by {known.who!r}: {known.why!r}) serves on. If the registry was "
            f"restored from a copy, an operator runs: turnout splits republish {sent.model}",
            sent.model,
            known.revision,
        )

    def _raise(
        self, kind: RegistryAlarm.Kind, reason: str, model: str = "", revision: int = 0
    ) -> None:
        name = RegistryAlarm.Kind.Name(kind)
        self._on_refused(name)
        alarm = RegistryAlarm(kind=kind, model=model, reason=reason, revision=revision)
        # The log has an alarm once, and not at each of the attempts that follow.
        if self._alarms.get((kind, model)) != alarm:
            self._alarms[kind, model] = alarm
            log.error("registry_alarm kind=%s model=%s reason=%s", name, model or "-", reason)

    def _clear(self, kind: RegistryAlarm.Kind, model: str = "") -> None:
        if self._alarms.pop((kind, model), None) is not None:
            name = RegistryAlarm.Kind.Name(kind)
            log.info("registry_alarm_over kind=%s model=%s", name, model or "-")
