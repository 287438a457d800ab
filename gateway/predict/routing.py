"""Who answers whom: a pure choice for each call of a batch."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls
from gateway.key_column import KeyColumn, Offsets
from gateway.models.routes import Participant, Routes
from gateway.native_library import load_native_library
from protos.predict_pb2 import NOT_STICKY
from protos.window_pb2 import ARM_CANARY, ARM_PINNED, ARM_PRODUCTION, ARM_STANDBY
from registry.types import ALL_BP, EVIDENCE_DOMAIN, HOLDOUT_DOMAIN, SPLIT_DOMAIN

KEY_BYTES_RANDOM = 16

ArmShare = tuple[int, int]
"""An arm, and how many of 10,000 buckets it owns."""
AssignArms = Callable[[bytes, bytes, Offsets, Offsets, ArmShare, ArmShare, int], bytes]
"""(before, buffer, starts, ends, canary, standby, the rest): each key's arm, a byte each."""
ASSIGN_ARMS: AssignArms | None = getattr(load_native_library(), "arms", None)
"""Without it numpy divides a batch: 6 us instead of 2."""


@dataclass(slots=True)
class Assignment:
    """Which arm answers each of C calls, and the keys they are remembered by."""

    keys: KeyColumn
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
    unknown_pins: dict[int, str]
    """call -> a pin that is not deployed."""

    def calls_in_arm(self, arm: int) -> NDArray[np.intp]:
        """Indexes of the calls of one arm, in order; only where the batch is divided."""
        assert self.arm is not None
        calls: NDArray[np.intp] = (self.arm == arm).nonzero()[0]  # flatnonzero costs three times it
        return calls


def assign_arms(routes: Routes, keys: KeyColumn) -> NDArray[np.uint8]:
    """Return the arm that answers each key: the same on every gateway, after every restart."""
    deployment = routes.deployment
    before = deployment.split_salt + SPLIT_DOMAIN
    if ASSIGN_ARMS is not None:
        canary = (ARM_CANARY, deployment.canary_bp)
        standby = (ARM_STANDBY, deployment.standby_bp)
        places = (keys.buffer, keys.starts, keys.ends)
        return np.frombuffer(
            ASSIGN_ARMS(before, *places, canary, standby, ARM_PRODUCTION), np.uint8
        )
    buckets = keys.hashes(before) % ALL_BP
    arms = np.full(len(keys), ARM_PRODUCTION, dtype=np.uint8)
    arms[buckets >= ALL_BP - deployment.standby_bp] = ARM_STANDBY
    arms[buckets < deployment.canary_bp] = ARM_CANARY
    return arms


def assign_calls(routes: Routes, calls: Calls) -> Assignment:
    """Assign every call: hashes of its key, a few numpy calls for all of them."""
    deployment = routes.deployment
    keys, sticky = sticky_keys(routes, calls)
    assignment = Assignment(
        keys=keys,
        arm=None,
        key_hash=keys.hashes(deployment.split_salt + EVIDENCE_DOMAIN),
        holdout=None,
        flags=None,
        pins={},
        unknown_pins={},
    )
    if sticky is not None:
        assignment.flags = np.where(sticky, 0, NOT_STICKY).astype(np.uint32)
    if deployment.canary_bp or deployment.standby_bp:
        assignment.arm = assign_arms(routes, keys)
    if deployment.holdout_bp:
        drawn = holdout_keys(routes, calls, keys).hashes(deployment.holdout_salt + HOLDOUT_DOMAIN)
        assignment.holdout = drawn % ALL_BP < deployment.holdout_bp
    if calls.pins:
        _assign_pins(routes, calls, assignment)
    return assignment


def _assign_pins(routes: Routes, calls: Calls, assignment: Assignment) -> None:
    """Give the calls that name a version to that version, or to nobody."""
    if assignment.arm is None:
        assignment.arm = np.full(calls.calls, ARM_PRODUCTION, dtype=np.uint8)
    assignment.arm = assignment.arm.copy()
    for call, name in calls.pins:
        participant = routes.resolve_pin(name)
        if participant is None:
            assignment.unknown_pins[call] = name
        else:
            assignment.pins[call] = participant
        assignment.arm[call] = ARM_PINNED


def sticky_keys(routes: Routes, calls: Calls) -> tuple[KeyColumn, NDArray[np.bool_] | None]:
    """Each call's sticky key, and whether it is one that would come back; None: all would.

    The call's own; else the first key of its first row; else its request id; else random.
    """
    firsts = first_entities(routes, calls)
    if not calls.sticky and firsts.none_empty():
        return firsts, None
    own = KeyColumn(calls.sticky, calls.sticky_offsets[:-1], calls.sticky_offsets[1:])
    if own.none_empty():
        return own, None
    requests = KeyColumn(
        calls.request_ids, calls.request_id_offsets[:-1], calls.request_id_offsets[1:]
    )
    given = [one or first for one, first in zip(own.to_list(), firsts.to_list(), strict=True)]
    keys = [
        key or request or os.urandom(KEY_BYTES_RANDOM)
        for key, request in zip(given, requests.to_list(), strict=True)
    ]
    return KeyColumn.from_list(keys), None if all(given) else np.array(
        list(map(bool, given)), dtype=np.bool_
    )


def holdout_keys(routes: Routes, calls: Calls, keys: KeyColumn) -> KeyColumn:
    """What the holdout is drawn on: the customer, whatever a caller sends as sticky key."""
    firsts = first_entities(routes, calls)
    if firsts.none_empty():
        return firsts
    return KeyColumn.from_list(
        [one or key for one, key in zip(firsts.to_list(), keys.to_list(), strict=True)]
    )


def first_entities(routes: Routes, calls: Calls) -> KeyColumn:
    """The first key of each call's first row; empty for models without entities."""
    entities = routes.shape.entities
    if entities == 0:
        nothing = np.zeros(calls.calls, dtype=np.uint32)
        return KeyColumn(b"", nothing, nothing)
    firsts = calls.row_offsets[:-1].astype(np.intp) * entities
    return KeyColumn(
        calls.entity_ids, calls.entity_offsets[firsts], calls.entity_offsets[firsts + 1]
    )
