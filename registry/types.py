"""Types of the registry that other rooms use: deployments, the hashes of splits, and errors.

Other rooms may import this module, registry.client and registry.bundle. Nothing here does I/O,
except `read_token`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from xxhash import xxh3_64_intdigest

from protos import registry_pb2

MODEL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
"""What the name of a model may be, in the registry and so in every project."""

ALL_BP = 10_000
"""All traffic, in basis points. The smallest share is 1 basis point, 0.01 % of the traffic."""

FIRST_POLICY = "initial"
"""Policy name of the approval with which a model's first version becomes production."""

SPLIT_DOMAIN = b"\x00"
SHADOW_DOMAIN = b"\x01"
HOLDOUT_DOMAIN = b"\x02"
EVIDENCE_DOMAIN = b"\x03"
"""The byte between salt and key. It makes the hashes of one key for each purpose independent."""


class DeploymentError(ValueError):
    """A proposed deployment contradicts itself."""


class RegistryError(Exception):
    """The registry refused a request, or did not answer. The subclass says which."""


class BadRequestError(RegistryError):
    """The request contradicts itself or breaks a rule of names or sizes. The caller corrects it."""


class NotFoundError(RegistryError):
    """There is no model, version or approval of that name."""


class GateError(RegistryError):
    """A condition of the change is not met yet. The message says what must happen first."""


class RevisionConflictError(RegistryError):
    """Another change was written first. Read the present state again and decide anew."""


class FencedError(RegistryError):
    """Another controller holds the lease. This controller must stop acting."""


class UnknownActorError(RegistryError):
    """The caller gave no name or no valid token."""


class NotAllowedError(RegistryError):
    """The caller does not have the role that the RPC needs."""


class RegistryFullError(RegistryError):
    """The registry's disk is full, or a message is too large. Nothing was written."""


class RegistryUnavailableError(RegistryError):
    """The registry did not answer or is busy. The request may be sent again."""


class RegistryFaultError(RegistryError):
    """The registry failed. The message has an error id, and the registry's log has the cause."""


class VersionRefusedError(Exception):
    """The files of a version do not pass a check. The version must not be used."""


class ScoringError(Exception):
    """ONNX Runtime could not score a batch, because of the version or of a row in the batch."""


def read_token(file: Path) -> str:
    """Return the bearer token in *file*.

    Raises UnknownActorError when the file cannot be read, or holds more or less than one token.
    """
    try:
        tokens = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UnknownActorError(f"the token file {file} cannot be read: {error}") from error
    if len(tokens) != 1:
        raise UnknownActorError(
            f"the token file {file} holds {len(tokens)} words; it must hold one token"
        )
    return tokens[0]


def same_person(name: str, other: str) -> bool:
    """Return True if two actors' names are one name by NFKC and case folding."""
    return _folded_name(name) == _folded_name(other)


def _folded_name(name: str) -> str:
    # Case folding can leave a text that NFKC changes again.
    return normalize("NFKC", normalize("NFKC", name).casefold())


def rejection_ends(rejection: registry_pb2.Approval, approval: registry_pb2.Approval) -> bool:
    """Return True if *rejection* ends *approval*, an earlier approval of the same version.

    A rejection is of the version under every policy, or under the one policy that it names. The
    name counts with all editions of the policy, so editing the policy's file changes nothing.
    """
    same_policy = _policy_family(rejection.policy_name) == _policy_family(approval.policy_name)
    same_digest = bool(rejection.policy_digest) and (
        rejection.policy_digest == approval.policy_digest
    )
    return rejects_every_policy(rejection) or same_policy or same_digest


def rejects_every_policy(rejection: registry_pb2.Approval) -> bool:
    """Return True if the rejection names no rollout policy."""
    return rejection.policy_name in ("", FIRST_POLICY)


def _policy_family(policy_name: str) -> str:
    return policy_name.partition("@")[0]


def standing_approvals(
    approvals: Sequence[registry_pb2.Approval],
) -> list[registry_pb2.Approval]:
    """Return the approvals of one version that no later rejection ended, oldest first.

    approvals  all approvals and rejections of the version, oldest first.
    """
    return [
        approval
        for place, approval in enumerate(approvals)
        if not approval.rejected
        and not any(
            later.rejected and rejection_ends(later, approval) for later in approvals[place + 1 :]
        )
    ]


def rejection_in_force(
    approvals: Sequence[registry_pb2.Approval],
) -> registry_pb2.Approval | None:
    """Return the rejection because of which the version may run nowhere, or None.

    It is a rejection under every policy, after which no approval was given that stands.

    approvals  all approvals and rejections of the version, oldest first.
    """
    rejections = [item for item in approvals if item.rejected and rejects_every_policy(item)]
    return rejections[-1] if rejections and not standing_approvals(approvals) else None


@dataclass(frozen=True, slots=True)
class BrokenEntry:
    """The first history entry whose digest, position or signature is wrong."""

    seq: int
    problem: str
    """A text that continues "entry <seq> ", such as "was edited: ..."."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found in a registry."""

    head: registry_pb2.SignedHead
    """The signed head up to which the history was checked."""
    problem: str = ""
    """The first thing that is not as it was written, in words; empty if everything is."""
    broken: BrokenEntry | None = None
    """The broken history entry, if *problem* is one."""
    stopped: str = ""
    """Why the registry refuses writes; empty while it accepts them."""
    unproven: tuple[str, ...] = ()
    """What this audit could not prove, a sentence each."""

    @property
    def intact(self) -> bool:
        """True if history and tables are as they were written, and the registry says so too."""
        return not self.problem and not self.stopped


@dataclass(frozen=True, slots=True)
class ProjectRevision:
    """The definitions of one project at one revision, and how it was applied."""

    name: str
    revision: int
    digest: str
    """SHA-256 of the definitions, hex."""
    definitions: bytes
    """Canonical JSON (registry/rules/projects.py); empty in lists and in the reply of an apply."""
    plan_digest: str
    """SHA-256 of the plan that was applied, hex."""
    effects: tuple[str, ...]
    """What the plan said, a sentence each."""
    author: str
    commit: str
    """Commit of the repository; empty if the folder was in none."""
    dirty: bool
    """True if the work tree had changes that no commit has."""
    reason: str
    applied_unix_ms: int

    @staticmethod
    def from_proto(message: registry_pb2.ProjectRevision) -> "ProjectRevision":
        """Rebuild a revision from its message."""
        fields = {item.name: getattr(message, item.name) for item in message.DESCRIPTOR.fields}
        return ProjectRevision(
            **{**fields, "effects": tuple(effect.text for effect in message.effects)}
        )


STATUS_NAMES: dict[registry_pb2.VersionStatus, str] = {
    registry_pb2.DEVELOPMENT: "development",
    registry_pb2.STAGING: "staging",
    registry_pb2.PRODUCTION_STATUS: "production",
    registry_pb2.ARCHIVED: "archived",
}
"""The names of the statuses in the history, in commands and in messages."""


TOKEN_SECRET_BITS = 40
"""Random bits at the end of a lease token. The number of the lease is above them."""


def lease_number(token: int) -> int:
    """Return the number of the lease that a token is for. It grows with each new holder."""
    return token >> TOKEN_SECRET_BITS


def split_bucket(salt: bytes, sticky_key: bytes) -> int:
    """Return the key's bucket, 0 to 9999, which decides between production, canary and standby.

    salt  16 bytes, different for each rollout.
    """
    return xxh3_64_intdigest(salt + SPLIT_DOMAIN + sticky_key) % ALL_BP


def shadow_bucket(salt: bytes, version_id: bytes, sticky_key: bytes) -> int:
    """Return the key's bucket, 0 to 9999, which decides whether one shadow scores a copy.

    version_id  the 32 bytes of the shadow's version id, so that shadows have different samples.
    """
    return xxh3_64_intdigest(salt + SHADOW_DOMAIN + version_id + sticky_key) % ALL_BP


def holdout_bucket(holdout_salt: bytes, customer_key: bytes) -> int:
    """Return the customer's bucket, 0 to 9999, which decides who is in the holdout.

    holdout_salt  16 bytes that a model keeps for ever.
    """
    return xxh3_64_intdigest(holdout_salt + HOLDOUT_DOMAIN + customer_key) % ALL_BP


def evidence_key(salt: bytes, sticky_key: bytes) -> int:
    """Return the 64 bits that stand for the sticky key in windows, prediction ids and journals."""
    return xxh3_64_intdigest(salt + EVIDENCE_DOMAIN + sticky_key)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The versions of one model that answer calls, and their shares, at one revision.

    The canary has buckets 0 to canary_bp - 1, the standby has the top standby_bp buckets, and
    production has the rest. So a growing share of canary or standby never gives a key back.

    Raises DeploymentError when fields contradict each other.
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
                f"model {self.model!r} has no production version, and a canary, shadow or standby "
                "needs one beside it; set production="
            )
        roles = [
            self.production,
            self.standby,
            self.canary,
            *(version for version, _ in self.shadows),
        ]
        versions = [version for version in roles if version]
        if len(set(versions)) != len(versions):
            raise DeploymentError(f"model {self.model!r} gives one version two roles: {versions}")

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
        """Labels of all versions in the deployment: production first, preloaded versions last."""
        labels = (
            self.production,
            self.standby,
            self.canary,
            *(version for version, _ in self.shadows),
            *self.preload,
        )
        return tuple(dict.fromkeys(label for label in labels if label))

    def digest(self, version: str) -> str:
        """Return the id (hex) of the version with the label *version*.

        Raises KeyError when the deployment does not have it.
        """
        return dict(self.digests)[version]

    def to_proto(self) -> registry_pb2.Deployment:
        """Return the deployment as a protobuf message, for the wire and the database."""
        # Fields that are equal in both.
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
        # Canary and shadows are messages of their own.
        if self.canary:
            message.canary.version = self.canary
            message.canary.share_bp = self.canary_bp
        for version, sample_bp in self.shadows:
            message.shadows.add(version=version, sample_bp=sample_bp)
        return message

    @staticmethod
    def from_proto(message: registry_pb2.Deployment) -> "Deployment":
        """Rebuild a deployment from its message. Raises DeploymentError as the class does."""
        # A message without a salt has sixteen zero bytes, which mean "none yet".
        return Deployment(
            model=message.model,
            revision=message.revision,
            production=message.production,
            standby=message.standby,
            standby_bp=message.standby_bp,
            canary=message.canary.version,
            canary_bp=message.canary.share_bp,
            shadows=tuple((shadow.version, shadow.sample_bp) for shadow in message.shadows),
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
