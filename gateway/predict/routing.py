"""Who answers whom: a pure choice for each call of a batch."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.batch_keys import Keys, Offsets
from gateway.columns import Calls
from gateway.models.routes import Participant, Routes
from gateway.native_library import built
from protos.predict_pb2 import NOT_STICKY
from protos.window_pb2 import ARM_CANARY, ARM_PINNED, ARM_PRODUCTION, ARM_STANDBY
from registry.types import EVIDENCE, HOLDOUT, SPLIT, WHOLE_BP

KEY_BYTES_RANDOM = 16

Share = tuple[int, int]
"""An arm, and how many of 10,000 buckets it owns."""
Divide = Callable[[bytes, bytes, Offsets, Offsets, Share, Share, int], bytes]
"""(before, buffer, starts, ends, canary, standby, the rest): each key's arm, a byte each."""
ARMS: Divide | None = getattr(built(), "arms", None)
"""Without it numpy divides a batch: 6 us instead of 2."""


@dataclass(slots=True)
class Assignment:
    """Which arm answers each of C calls, and the keys they are remembered by."""

    keys: Keys
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
        calls: NDArray[np.intp] = (self.arm == arm).nonzero()[0]  # flatnonzero costs three times it
        return calls


def arms_of(routes: Routes, keys: Keys) -> NDArray[np.uint8]:
    """Return the arm that answers each key: the same on every gateway, after every restart."""
    deployment = routes.deployment
    before = deployment.split_salt + SPLIT
    if ARMS is not None:
        canary = (ARM_CANARY, deployment.canary_bp)
        standby = (ARM_STANDBY, deployment.standby_bp)
        places = (keys.buffer, keys.starts, keys.ends)
        return np.frombuffer(ARMS(before, *places, canary, standby, ARM_PRODUCTION), np.uint8)
    buckets = keys.hashes(before) % WHOLE_BP
    arms = np.full(len(keys), ARM_PRODUCTION, dtype=np.uint8)
    arms[buckets >= WHOLE_BP - deployment.standby_bp] = ARM_STANDBY
    arms[buckets < deployment.canary_bp] = ARM_CANARY
    return arms


def assign(routes: Routes, calls: Calls) -> Assignment:
    """Assign every call: hashes of its key, a few numpy calls for all of them."""
    deployment = routes.deployment
    keys, sticky = sticky_keys(routes, calls)
    assignment = Assignment(
        keys=keys,
        arm=None,
        key_hash=keys.hashes(deployment.split_salt + EVIDENCE),
        holdout=None,
        flags=None,
        pins={},
        strangers={},
    )
    if sticky is not None:
        assignment.flags = np.where(sticky, 0, NOT_STICKY).astype(np.uint32)
    if deployment.canary_bp or deployment.standby_bp:
        assignment.arm = arms_of(routes, keys)
    if deployment.holdout_bp:
        drawn = customer_keys(routes, calls, keys).hashes(deployment.holdout_salt + HOLDOUT)
        assignment.holdout = drawn % WHOLE_BP < deployment.holdout_bp
    if calls.pins:
        _pin(routes, calls, assignment)
    return assignment


def _pin(routes: Routes, calls: Calls, assignment: Assignment) -> None:
    """Give the calls that name a version to that version, or to nobody."""
    if assignment.arm is None:
        assignment.arm = np.full(calls.calls, ARM_PRODUCTION, dtype=np.uint8)
    assignment.arm = assignment.arm.copy()
    for call, name in calls.pins:
        participant = routes.pinned(name)
        if participant is None:
            assignment.strangers[call] = name
        else:
            assignment.pins[call] = participant
        assignment.arm[call] = ARM_PINNED


def sticky_keys(routes: Routes, calls: Calls) -> tuple[Keys, NDArray[np.bool_] | None]:
    """Each call's sticky key, and whether it is one that would come back; None: all would.

    The call's own; else the first key of its first row; else its request id; else random.
    """
    firsts = first_entities(routes, calls)
    if not calls.sticky and firsts.whole():
        return firsts, None
    own = Keys(calls.sticky, calls.sticky_offsets[:-1], calls.sticky_offsets[1:])
    if own.whole():
        return own, None
    requests = Keys(calls.request_ids, calls.request_id_offsets[:-1], calls.request_id_offsets[1:])
    given = [one or first for one, first in zip(own.each(), firsts.each(), strict=True)]
    keys = [
        key or request or os.urandom(KEY_BYTES_RANDOM)
        for key, request in zip(given, requests.each(), strict=True)
    ]
    return Keys.of(keys), None if all(given) else np.array(list(map(bool, given)), dtype=np.bool_)


def customer_keys(routes: Routes, calls: Calls, keys: Keys) -> Keys:
    """What the holdout is drawn on: the customer, whatever a caller sends as sticky key."""
    firsts = first_entities(routes, calls)
    if firsts.whole():
        return firsts
    return Keys.of([one or key for one, key in zip(firsts.each(), keys.each(), strict=True)])


def first_entities(routes: Routes, calls: Calls) -> Keys:
    """The first key of each call's first row; empty for models without entities."""
    entities = routes.shape.entities
    if entities == 0:
        nothing = np.zeros(calls.calls, dtype=np.uint32)
        return Keys(b"", nothing, nothing)
    firsts = calls.row_offsets[:-1].astype(np.intp) * entities
    return Keys(calls.entity_ids, calls.entity_offsets[firsts], calls.entity_offsets[firsts + 1])
