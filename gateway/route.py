"""Who answers whom: a pure choice for each call of a batch."""

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls
from gateway.deployed import Participant, Routes
from protos.predict_pb2 import NOT_STICKY
from protos.window_pb2 import ARM_CANARY, ARM_PINNED, ARM_PRODUCTION, ARM_STANDBY
from registry.types import WHOLE_BP, evidence_key, holdout_bucket, split_bucket

KEY_BYTES_RANDOM = 16


@dataclass(slots=True)
class Assignment:
    """Which arm answers each of C calls, and the keys they are remembered by."""

    keys: list[bytes]
    """C sticky keys."""
    arm: NDArray[np.uint8] | None
    """(C,) turnout.v1.Arm; None: every call is production's."""
    key_hash: NDArray[np.uint64]
    """(C,) evidence keys."""
    holdout: NDArray[np.bool_] | None
    """(C,) in the control group: scored and answered, and no evidence. None: nobody."""
    flags: NDArray[np.uint32] | None
    """(C,) NOT_STICKY or 0, for every row of the call; None: all 0."""
    pins: dict[int, Participant]
    """call -> the version it named."""
    strangers: dict[int, str]
    """call -> a pin that is not deployed."""

    def calls_of(self, arm: int) -> NDArray[np.intp]:
        """Indexes of the calls of one arm, in order; only where the batch is divided."""
        assert self.arm is not None
        return np.flatnonzero(self.arm == arm)


def arm_of(routes: Routes, sticky_key: bytes) -> int:
    """Return the arm that answers *sticky_key*: the same on every gateway, after every restart."""
    deployment = routes.deployment
    if not deployment.canary_bp and not deployment.standby_bp:
        return ARM_PRODUCTION
    bucket = split_bucket(deployment.split_salt, sticky_key)
    if bucket < deployment.canary_bp:
        return ARM_CANARY
    if bucket >= WHOLE_BP - deployment.standby_bp:
        return ARM_STANDBY
    return ARM_PRODUCTION


def assign(routes: Routes, calls: Calls) -> Assignment:
    """Assign every call. About 1 us a call: one or two xxh3 of a short key."""
    deployment = routes.deployment
    keys, sticky = sticky_keys(routes, calls)
    salt = deployment.split_salt
    assignment = Assignment(
        keys=keys,
        arm=None,
        key_hash=np.array([evidence_key(salt, key) for key in keys], dtype=np.uint64),
        holdout=None,
        flags=None,
        pins={},
        strangers={},
    )
    if not all(sticky):
        flags = [0 if is_sticky else NOT_STICKY for is_sticky in sticky]
        assignment.flags = np.array(flags, dtype=np.uint32)
    if deployment.canary_bp or deployment.standby_bp:
        assignment.arm = np.array([arm_of(routes, key) for key in keys], dtype=np.uint8)
    if deployment.holdout_bp:
        drawn = [
            holdout_bucket(deployment.holdout_salt, key) < deployment.holdout_bp
            for key in customer_keys(routes, calls, keys)
        ]
        assignment.holdout = np.array(drawn, dtype=np.bool_)
    if calls.pins:
        _pin(routes, calls, assignment)
    return assignment


def _pin(routes: Routes, calls: Calls, assignment: Assignment) -> None:
    """Give the calls that name a version to that version, or to nobody."""
    if assignment.arm is None:
        assignment.arm = np.full(calls.calls, ARM_PRODUCTION, dtype=np.uint8)
    for call, name in calls.pins:
        participant = routes.pinned(name)
        if participant is None:
            assignment.strangers[call] = name
        else:
            assignment.pins[call] = participant
        assignment.arm[call] = ARM_PINNED


def sticky_keys(routes: Routes, calls: Calls) -> tuple[list[bytes], list[bool]]:
    """Each call's sticky key, and whether it is one that would come back.

    The call's own; else the first key of its first row; else its request id; else random.
    """
    keys: list[bytes] = []
    sticky: list[bool] = []
    own, offsets = calls.sticky, calls.sticky_offsets.tolist()
    firsts = first_entities(routes, calls)
    if not own and all(firsts):
        return firsts, [True] * len(firsts)
    request_offsets = calls.request_id_offsets.tolist()
    for call in range(calls.calls):
        key = own[offsets[call] : offsets[call + 1]] or firsts[call]
        sticky.append(bool(key))
        if not key:
            key = calls.request_ids[request_offsets[call] : request_offsets[call + 1]]
        keys.append(key or os.urandom(KEY_BYTES_RANDOM))
    return keys, sticky


def customer_keys(routes: Routes, calls: Calls, keys: list[bytes]) -> list[bytes]:
    """What the holdout is drawn on: the customer, whatever a caller sends as sticky key."""
    return [first or key for first, key in zip(first_entities(routes, calls), keys, strict=True)]


def first_entities(routes: Routes, calls: Calls) -> list[bytes]:
    """The first key of each call's first row; empty for models without entities."""
    entities = routes.shape.entities
    if entities == 0:
        return [b""] * calls.calls
    firsts = [row * entities for row in calls.row_offsets[:-1].tolist()]
    offsets, buffer = calls.entity_offsets.tolist(), calls.entity_ids
    return [buffer[offsets[first] : offsets[first + 1]] for first in firsts]
