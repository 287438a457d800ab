"""Routing: which arm answers each call of a batch. Pure, and the same on every gateway."""

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Assignment
from gateway.columns import Calls
from gateway.key_column import KeyColumn, Offsets
from gateway.models.routes import Routes
from gateway.native_library import load_native_library
from protos.predict_pb2 import NOT_STICKY
from protos.window_pb2 import ARM_CANARY, ARM_PINNED, ARM_PRODUCTION, ARM_STANDBY
from registry.types import ALL_BP, EVIDENCE_DOMAIN, HOLDOUT_DOMAIN, SPLIT_DOMAIN

KEY_BYTES_RANDOM = 16

ArmShare = tuple[int, int]
"""(turnout.v1.Arm, how many of 10,000 buckets it owns)."""
AssignArms = Callable[[bytes, bytes, Offsets, Offsets, ArmShare, ArmShare, int], bytes]
"""(hash prefix, key buffer, starts, ends, canary, standby, arm of the rest) to one arm a key."""
ASSIGN_ARMS: AssignArms | None = getattr(load_native_library(), "assign_arms", None)
"""None if the library is not built. numpy then takes 6 us for a batch instead of 2."""


def assign_arms(routes: Routes, keys: KeyColumn) -> NDArray[np.uint8]:
    """Return the arm of each key. It is the same on every gateway and after every restart."""
    deployment = routes.deployment
    prefix = deployment.split_salt + SPLIT_DOMAIN
    if ASSIGN_ARMS is not None:
        canary = (ARM_CANARY, deployment.canary_bp)
        standby = (ARM_STANDBY, deployment.standby_bp)
        column = (keys.buffer, keys.starts, keys.ends)
        arms = ASSIGN_ARMS(prefix, *column, canary, standby, ARM_PRODUCTION)
        return np.frombuffer(arms, np.uint8)
    buckets = keys.hashes(prefix) % ALL_BP
    arm = np.full(len(keys), ARM_PRODUCTION, dtype=np.uint8)
    arm[buckets >= ALL_BP - deployment.standby_bp] = ARM_STANDBY
    arm[buckets < deployment.canary_bp] = ARM_CANARY
    return arm


def assign_calls(routes: Routes, calls: Calls) -> Assignment:
    """Assign every call of a batch to an arm, in a few numpy calls for all of them."""
    deployment = routes.deployment
    keys, sticky = sticky_keys(routes, calls)
    assignment = Assignment(
        keys=keys,
        arm=None,
        key_hash=keys.hashes(deployment.split_salt + EVIDENCE_DOMAIN),
        holdout=None,
        flags=None,
        pins={},
        shadow_pins={},
        refused_pins=(),
    )
    if sticky is not None:
        assignment.flags = np.where(sticky, 0, NOT_STICKY).astype(np.uint32)
    if deployment.canary_bp or deployment.standby_bp:
        assignment.arm = assign_arms(routes, keys)
    if deployment.holdout_bp:
        prefix = deployment.holdout_salt + HOLDOUT_DOMAIN
        buckets = holdout_keys(routes, calls, keys).hashes(prefix) % ALL_BP
        assignment.holdout = buckets < deployment.holdout_bp
    if calls.pins:
        _assign_pins(routes, calls, assignment)
    return assignment


def _assign_pins(routes: Routes, calls: Calls, assignment: Assignment) -> None:
    """Take the calls that name a version out of the split."""
    if assignment.arm is None:
        assignment.arm = np.full(calls.calls, ARM_PRODUCTION, dtype=np.uint8)
    assignment.arm = assignment.arm.copy()
    for pin in calls.pins:
        assignment.arm[pin.call] = ARM_PINNED
        participant = routes.resolve_pin(pin.version, any_version=pin.any_version)
        if participant is None:
            assignment.refused_pins += (pin,)
        elif routes.is_shadow(participant):
            assignment.shadow_pins[pin.call] = participant
        else:
            assignment.pins[pin.call] = participant


def sticky_keys(routes: Routes, calls: Calls) -> tuple[KeyColumn, NDArray[np.bool_] | None]:
    """Return the C sticky keys, and (C,) whether a call's key is sticky. None: all are.

    The sticky key is the call's own, else the first key of its first row. A call without either is
    not sticky: its key is its request id, else random.
    """
    # Usually no call gives a sticky key of its own, or all calls do.
    entity_keys = first_entities(routes, calls)
    if not calls.sticky and entity_keys.none_empty():
        return entity_keys, None
    call_keys = KeyColumn(calls.sticky, calls.sticky_offsets[:-1], calls.sticky_offsets[1:])
    if call_keys.none_empty():
        return call_keys, None
    # Some calls lack a key: decide call by call.
    request_ids = KeyColumn(
        calls.request_ids, calls.request_id_offsets[:-1], calls.request_id_offsets[1:]
    )
    sticky = [
        call_key or entity_key
        for call_key, entity_key in zip(call_keys.to_list(), entity_keys.to_list(), strict=True)
    ]
    keys = [
        key or request_id or os.urandom(KEY_BYTES_RANDOM)
        for key, request_id in zip(sticky, request_ids.to_list(), strict=True)
    ]
    if all(sticky):
        return KeyColumn.from_list(keys), None
    return KeyColumn.from_list(keys), np.array([bool(key) for key in sticky], dtype=np.bool_)


def holdout_keys(routes: Routes, calls: Calls, keys: KeyColumn) -> KeyColumn:
    """Return the C keys by which the holdout is drawn: the customer, whatever the sticky key is."""
    entity_keys = first_entities(routes, calls)
    if entity_keys.none_empty():
        return entity_keys
    return KeyColumn.from_list(
        [
            entity_key or key
            for entity_key, key in zip(entity_keys.to_list(), keys.to_list(), strict=True)
        ]
    )


def first_entities(routes: Routes, calls: Calls) -> KeyColumn:
    """Return the first key of each call's first row. Empty keys if the model has no entities."""
    entities = routes.shape.entities
    if entities == 0:
        zeros = np.zeros(calls.calls, dtype=np.uint32)
        return KeyColumn(b"", zeros, zeros)
    first_ids = calls.row_offsets[:-1].astype(np.intp) * entities
    return KeyColumn(
        calls.entity_ids, calls.entity_offsets[first_ids], calls.entity_offsets[first_ids + 1]
    )
