"""What every room may know of the registry: a deployment, who gets which version, what fails.

Pure: no I/O, no storage. One of the registry's three doors, with registry.client and
registry.bundle.
"""

from dataclasses import dataclass, field
from pathlib import Path

from xxhash import xxh3_64_intdigest

from protos import registry_pb2

ALL_BP = 10_000
"""Basis points: the finest share is 0.01 % of the traffic."""

SPLIT_DOMAIN = b"\x00"
SHADOW_DOMAIN = b"\x01"
HOLDOUT_DOMAIN = b"\x02"
EVIDENCE_DOMAIN = b"\x03"
"""What follows the salt, so that one key draws independently for each purpose."""


class DeploymentError(ValueError):
    """A proposed deployment contradicts itself."""


class RegistryError(Exception):
    """The registry said no, or could not be asked. What each kind means is its subclass."""


class BadRequestError(RegistryError):
    """The request contradicts itself or the rules of names and sizes: the caller's mistake."""


class NotFoundError(RegistryError):
    """No model, version or approval of that name: the caller's mistake."""


class GateError(RegistryError):
    """A promise is not yet kept (approval, readiness, four eyes): do that first, then ask again."""


class RevisionConflictError(RegistryError):
    """Somebody else changed it first: read it again and judge anew."""


class FencedError(RegistryError):
    """Another controller holds the lease now: stop acting."""


class UnknownActorError(RegistryError):
    """Nobody said who is asking, or the token is not one of ours."""


class NotAllowedError(RegistryError):
    """Who is asking is known, and does not have the role this needs."""


class RegistryFullError(RegistryError):
    """The registry's disk is full, or the message too large; nothing was written."""


class RegistryUnavailableError(RegistryError):
    """The registry did not answer, or is busy: what was asked may be asked again."""


class RegistryFaultError(RegistryError):
    """The registry failed in a way it does not explain; its log has the error id."""


class VersionRefusedError(Exception):
    """A version's files are not what was signed, promised or tested: it must not be used."""


class ScoringError(Exception):
    """ONNX Runtime could not score a batch: the version's fault, or one of its rows'."""


def read_token(file: Path) -> str:
    """Return the bearer token that *file* holds, and nothing else.

    Raises UnknownActorError when it cannot be read, or holds something else.
    """
    try:
        words = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UnknownActorError(f"the token file {file} cannot be read: {error}") from error
    if len(words) != 1:
        raise UnknownActorError(
            f"the token file {file} holds {len(words)} words; it is to hold one token"
        )
    return words[0]


@dataclass(frozen=True, slots=True)
class BrokenEntry:
    """The first history entry that is not as it was written."""

    seq: int
    problem: str
    """To be read after "entry <seq>": "was edited: ..."."""


def split_bucket(salt: bytes, sticky_key: bytes) -> int:
    """0..9999, for production, canary and standby. *salt*: 16 bytes, one a rollout."""
    return xxh3_64_intdigest(salt + SPLIT_DOMAIN + sticky_key) % ALL_BP


def shadow_bucket(salt: bytes, version_id: bytes, sticky_key: bytes) -> int:
    """0..9999, for one shadow's sample. *version_id*: the 32 raw bytes of the version's digest."""
    return xxh3_64_intdigest(salt + SHADOW_DOMAIN + version_id + sticky_key) % ALL_BP


def holdout_bucket(holdout_salt: bytes, customer_key: bytes) -> int:
    """0..9999, for the control group. *holdout_salt*: 16 bytes, permanent per model."""
    return xxh3_64_intdigest(holdout_salt + HOLDOUT_DOMAIN + customer_key) % ALL_BP


def evidence_key(salt: bytes, sticky_key: bytes) -> int:
    """64 bits that stand for the sticky key in windows, prediction ids and journals."""
    return xxh3_64_intdigest(salt + EVIDENCE_DOMAIN + sticky_key)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Who answers whom, of one model, at one revision.

    Buckets 0 .. canary_bp-1 are the canary's, the top standby_bp are the standby's, the rest is
    production's. Growing a share at either end therefore only moves keys towards its owner.
    """

    model: str
    revision: int = 0
    production: str = ""
    standby: str = ""
    standby_bp: int = 0
    canary: str = ""
    canary_bp: int = 0
    shadows: tuple[tuple[str, int], ...] = ()
    preload: tuple[str, ...] = ()
    holdout_bp: int = 0
    split_salt: bytes = bytes(16)
    holdout_salt: bytes = bytes(16)
    policy: registry_pb2.ServingPolicy = field(default_factory=registry_pb2.ServingPolicy)
    approval_id: str = ""
    rollout_id: str = ""
    who: str = ""
    why: str = ""
    at_unix_ns: int = 0
    digests: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        self._check_shares()
        if len(self.split_salt) != 16 or len(self.holdout_salt) != 16:
            raise DeploymentError(f"model {self.model!r}: both salts are 16 bytes")
        if (self.canary or self.shadows or self.standby) and not self.production:
            raise DeploymentError(
                f"model {self.model!r} has no production version, so nothing a canary, shadow or "
                "standby could stand beside; set production="
            )
        taking_part = [self.production, self.standby, self.canary, *(v for v, _ in self.shadows)]
        named = [version for version in taking_part if version]
        if len(set(named)) != len(named):
            raise DeploymentError(f"model {self.model!r} gives one version two roles: {named}")

    def _check_shares(self) -> None:
        shares = {
            "canary_bp": self.canary_bp,
            "standby_bp": self.standby_bp,
            "holdout_bp": self.holdout_bp,
            "canary_bp + standby_bp": self.canary_bp + self.standby_bp,
            **{f"sample of shadow {version}": bp for version, bp in self.shadows},
        }
        for name, share in shares.items():
            if not 0 <= share <= ALL_BP:
                raise DeploymentError(
                    f"model {self.model!r}: {name} is {share} basis points; it must be 0 to "
                    f"{ALL_BP} (10000 = all traffic)"
                )
        if self.canary_bp and not self.canary:
            raise DeploymentError(
                f"model {self.model!r} gives {self.canary_bp} basis points to a canary, but names "
                "none; set canary= or canary_bp=0"
            )
        if self.standby_bp and not self.standby:
            raise DeploymentError(
                f"model {self.model!r} gives {self.standby_bp} basis points to a standby, but "
                "names none; set standby= or standby_bp=0"
            )

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version named, once each: production first, preloaded ones last."""
        named = (
            self.production,
            self.standby,
            self.canary,
            *(version for version, _ in self.shadows),
            *self.preload,
        )
        return tuple(dict.fromkeys(version for version in named if version))

    def digest(self, version: str) -> str:
        """Return the id (hex) of the version labelled *version*; KeyError when it is not named."""
        return dict(self.digests)[version]

    def to_proto(self) -> registry_pb2.Deployment:
        """Return the message that travels and is stored."""
        message = registry_pb2.Deployment(
            model=self.model,
            revision=self.revision,
            production=self.production,
            standby=self.standby,
            standby_bp=self.standby_bp,
            preload=self.preload,
            holdout_bp=self.holdout_bp,
            split_salt=self.split_salt,
            holdout_salt=self.holdout_salt,
            policy=self.policy,
            approval_id=self.approval_id,
            rollout_id=self.rollout_id,
            who=self.who,
            why=self.why,
            at_unix_ns=self.at_unix_ns,
            digests=dict(self.digests),
        )
        if self.canary:
            message.canary.version = self.canary
            message.canary.share_bp = self.canary_bp
        for version, sample_bp in self.shadows:
            message.shadows.add(version=version, sample_bp=sample_bp)
        return message

    @staticmethod
    def from_proto(message: registry_pb2.Deployment) -> "Deployment":
        """Rebuild from the message; DeploymentError when it contradicts itself."""
        return Deployment(
            model=message.model,
            revision=message.revision,
            production=message.production,
            standby=message.standby,
            standby_bp=message.standby_bp,
            canary=message.canary.version,
            canary_bp=message.canary.share_bp,
            shadows=tuple((s.version, s.sample_bp) for s in message.shadows),
            preload=tuple(message.preload),
            holdout_bp=message.holdout_bp,
            split_salt=message.split_salt or bytes(16),
            holdout_salt=message.holdout_salt or bytes(16),
            policy=message.policy,
            approval_id=message.approval_id,
            rollout_id=message.rollout_id,
            who=message.who,
            why=message.why,
            at_unix_ns=message.at_unix_ns,
            digests=tuple(sorted(message.digests.items())),
        )
