"""The rows that a gateway has served, as columns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from features.offline import Spine
from protos.journal_pb2 import ServedBatch

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ServedRows:
    """N rows that versions with one contract were given."""

    spine: Spine
    """Their entity ids, and the instants at which the age of their features was judged."""
    vectors: NDArray[np.float32]
    """(N, F) the inputs of the model: stored features, then request inputs."""
    flags: NDArray[np.uint32]
    """(N,) turnout.v1.RowFlag bits."""

    def __len__(self) -> int:
        return len(self.vectors)


def served_rows(
    batches: Iterable[ServedBatch],
    contract: ModelContract,
    *,
    since_ms: int = 0,
    rows_max: int,
    chunk_rows: int,
) -> Iterator[ServedRows]:
    """Yield the rows with this contract among *batches*, in chunks of about *chunk_rows*.

    since_ms  leaves out calls before this instant, Unix ms.
    rows_max  ends after about as many rows.
    """
    waiting: list[ServedRows] = []
    count = total = 0
    for batch in batches:
        if batch.model_contract != contract.model_contract:
            continue
        rows = _rows_of(batch, contract, since_ms)
        waiting.append(rows)
        count, total = count + len(rows), total + len(rows)
        if count >= chunk_rows or total >= rows_max:
            yield _joined(waiting, contract)
            waiting, count = [], 0
        if total >= rows_max:
            return
    if count:
        yield _joined(waiting, contract)


def _rows_of(batch: ServedBatch, contract: ModelContract, since_ms: int) -> ServedRows:
    """Return the rows of one batch that are not older than *since_ms*."""
    row_count = np.frombuffer(batch.row_count, dtype="<u4")
    at_ns = np.repeat(np.frombuffer(batch.at_unix_ns, dtype="<i8"), row_count)
    at_ms = (at_ns // NS_PER_MS).astype(np.int64)
    vectors = np.frombuffer(batch.vectors, dtype="<f4").reshape(len(at_ms), batch.width)
    flags = np.frombuffer(batch.row_flags, dtype="<u4").astype(np.uint32)
    # The ids of a row lie beside each other, in the order of the contract's entities.
    kept = at_ms >= since_ms
    ids = np.array(batch.entity_ids, dtype=object).reshape(len(at_ms), len(contract.entities))
    by_entity = {
        entity: ids[kept, position].tolist() for position, entity in enumerate(contract.entities)
    }
    return ServedRows(Spine(ids=by_entity, as_of_ms=at_ms[kept]), vectors[kept], flags[kept])


def _joined(chunks: list[ServedRows], contract: ModelContract) -> ServedRows:
    ids = {
        entity: [entity_id for chunk in chunks for entity_id in chunk.spine.ids[entity]]
        for entity in contract.entities
    }
    return ServedRows(
        Spine(ids=ids, as_of_ms=np.concatenate([chunk.spine.as_of_ms for chunk in chunks])),
        np.concatenate([chunk.vectors for chunk in chunks]),
        np.concatenate([chunk.flags for chunk in chunks]),
    )
