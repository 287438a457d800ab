"""The columns of calls as the native library returns them: bytes, read as arrays without a copy."""

import itertools
from typing import Any

import numpy as np

from gateway.columns import Calls, Pin
from gateway.transport.call_queue import QueuedCall
from gateway.transport.decode import DecodedCall


def single_call(calls: Calls) -> QueuedCall:
    """Return a batch of one call as decoded values."""
    offsets = calls.entity_offsets.tolist()
    call = DecodedCall(
        model=calls.model,
        rows=calls.rows,
        sticky=calls.sticky,
        request_id=calls.request_ids,
        pin=calls.pins[0].version if calls.pins else "",
        any_version=bool(calls.pins) and calls.pins[0].any_version,
        criticality=int(calls.criticality[0]),
        ids=[calls.entity_ids[start:end] for start, end in itertools.pairwise(offsets)],
        inputs=calls.inputs.ravel().tolist(),
        nan_inputs=0,
    )
    return QueuedCall(
        int(calls.handles[0]), call, int(calls.arrived_ns[0]), int(calls.deadline_ns[0]), taken=True
    )


def calls_of_columns(native_columns: tuple[Any, ...]) -> Calls:
    """Return the thread's byte columns as arrays. Nothing is copied."""
    (model, width), handles, arrived, deadline, criticality, rows, *texts, pins, ids, inputs = (
        native_columns
    )
    (sticky, sticky_offsets), (request_ids, request_id_offsets) = texts
    return Calls(
        model=model,
        handles=np.frombuffer(handles, np.uint64),
        arrived_ns=np.frombuffer(arrived, np.int64),
        deadline_ns=np.frombuffer(deadline, np.int64),
        criticality=np.frombuffer(criticality, np.uint8),
        row_offsets=np.frombuffer(rows, np.uint32),
        sticky=sticky,
        sticky_offsets=np.frombuffer(sticky_offsets, np.uint32),
        request_ids=request_ids,
        request_id_offsets=np.frombuffer(request_id_offsets, np.uint32),
        pins=tuple(Pin(*pin) for pin in pins),
        entity_ids=ids[0],
        entity_offsets=np.frombuffer(ids[1], np.uint32),
        inputs=np.frombuffer(inputs, np.float32).reshape(-1, width)
        if width
        else np.empty((len(rows) // 4 and int(np.frombuffer(rows, np.uint32)[-1]), 0), np.float32),
    )
