"""The identity of a worker, as prediction ids, windows and the registry name it."""

from dataclasses import dataclass

NO_SLOT = 65_535
"""The slot number of a spare."""


@dataclass(slots=True)
class WorkerIdentity:
    """One worker of one gateway. The slot is known once the worker serves."""

    gateway: str
    slot: int
    boot_id: int
    """Random at each start, so that a worker differs from its successor in the slot."""
    prediction_id_key: bytes
    """32 bytes that the registry gives to every gateway."""
