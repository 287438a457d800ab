"""Says what labels were joined with: how many found a fresh row in each view, and why others not.

A label without a fresh row trains on the defaults of the view. A few are as in production; many
mean that ids, instants or ingests are wrong, and nothing else would show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract, time_columns
from features.offline import Spine, TrainingSet
from features.rows import DEFAULTED, MISSING, STALE
from features.storage.unjoined import OtherForm, Unjoined
from features.views import View
from host.clock import DAY_MS
from training.errors import JoinError
from training.labelled_rows import LabelledRows
from training.request_inputs import encode_inputs


class ReasonsSource(Protocol):
    """The method of features.offline.OfflineStore that says why rows found nothing."""

    def unjoined(self, view: View, spine: Spine) -> Unjoined:
        """Return why no row of *spine* found a fresh row of *view*."""


class RowSource(Protocol):
    """The methods of features.offline.OfflineStore that join labelled rows."""

    def training_set(
        self, contract: ModelContract, spine: Spine, *, with_known: bool = False
    ) -> TrainingSet:
        """Return the features as they were known at each instant of *spine*."""

    def unjoined(self, view: View, spine: Spine) -> Unjoined:
        """Return why no row of *spine* found a fresh row of *view*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedView:
    """Shares of the labels, each from 0 to 1, by what they found in one view.

    missing    no stored row at their instant, or only one older than two TTLs.
    stale      a row that was older than the view's TTL.
    defaulted  at least one feature of the view has its default. Missing and stale rows count here
               as well.
    """

    view: str
    missing: float
    stale: float
    defaulted: float

    @property
    def without_row(self) -> float:
        """The share without a fresh row, for which every feature of the view is a default."""
        return self.missing + self.stale

    def definition(self) -> dict[str, float]:
        """Return the shares as JSON values for the card."""
        return {"missing": self.missing, "stale": self.stale, "defaulted": self.defaulted}


def joined_rows(
    name: str,
    store: RowSource,
    contract: ModelContract,
    labels: LabelledRows,
    *,
    without_row_max: float,
) -> tuple[NDArray[np.float32], list[JoinedView]]:
    """Return the model inputs of the labelled rows, (N, F), and what the rows found in each view.

    name  what is trained or compared, for the message.

    Raises JoinError if too many labels found no fresh row, as `require_joined` says.
    """
    rows = store.training_set(contract, labels.spine)
    require_joined(name, store, contract, labels.spine, rows, without_row_max=without_row_max)
    blocks = [rows.values]
    if contract.inputs:
        blocks.append(encode_inputs(contract.inputs, labels.inputs))
    if contract.request_time:
        blocks.append(time_columns(labels.as_of_ms))
    matrix = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
    return matrix, joined_views(contract, rows)


def joined_views(contract: ModelContract, rows: TrainingSet) -> list[JoinedView]:
    """Return the shares of each view, in the contract's order."""
    return [
        JoinedView(
            view=use.view.name,
            missing=_share(flags, MISSING),
            stale=_share(flags, STALE),
            defaulted=_share(flags, DEFAULTED),
        )
        for use, flags in zip(contract.views, rows.view_flags.T, strict=True)
    ]


def require_joined(
    name: str,
    store: ReasonsSource,
    contract: ModelContract,
    spine: Spine,
    rows: TrainingSet,
    *,
    without_row_max: float,
) -> None:
    """Raise JoinError with the probable cause if a view has a fresh row for too few labels.

    name             what is trained or compared, for the message.
    without_row_max  largest share of the labels without a fresh row, 0 to 1.
    """
    texts = []
    for number, joined in enumerate(joined_views(contract, rows)):
        if joined.without_row <= without_row_max:
            continue
        view = contract.views[number].view
        unjoined = np.flatnonzero(rows.view_flags[:, number] & (MISSING | STALE))
        reasons = store.unjoined(view, _selected(spine, unjoined))
        texts.append(
            f"view {view.name!r} has no fresh row for {joined.without_row:.1%} of the "
            f"{len(rows.values):,} labels. {_probable_cause(view, reasons)}"
        )
    if texts:
        raise JoinError(
            f"{name}: {' Also: '.join(texts)} More than {without_row_max:.0%} would train on "
            "defaults; if that is meant, set GateSettings(without_row_max=...) in the recipe"
        )


def _share(flags: NDArray[np.uint32], bit: int) -> float:
    return float(np.mean((flags & np.uint32(bit)) != 0))


def _selected(spine: Spine, rows: NDArray[np.intp]) -> Spine:
    indices: Sequence[int] = rows.tolist()
    return Spine(
        ids={name: [ids[index] for index in indices] for name, ids in spine.ids.items()},
        as_of_ms=spine.as_of_ms[rows],
    )


def _probable_cause(view: View, reasons: Unjoined) -> str:
    """Return the probable cause and the way out, in whole sentences."""
    if not reasons.stored_ids:
        return (
            f"Probable cause: nothing is stored for this edition of the view; run turnout features "
            f"ingest {view.name}."
        )
    largest = max(reasons.unknown, reasons.later, reasons.too_old)
    if reasons.form is not None and reasons.unknown == largest:
        return _other_ids(reasons.unknown, reasons.form)
    if reasons.later == largest:
        return _later_rows(reasons)
    return (
        f"Probable cause: rows too old for {reasons.too_old:,} of these labels, as the view's time "
        f"to live is {view.ttl_ms / DAY_MS:,.2f} days. Ingest rows from before the labels' "
        "instants, or declare a longer ttl_ms."
    )


def _other_ids(unknown: int, form: OtherForm) -> str:
    found = f"{unknown:,} of these labels have an id that the view does not have"
    forms = f"labels: {form.asked}; view: {form.stored}"
    if form.difference:
        return (
            f"Probable cause: ids in another format. {found}; {form.share:.0%} of a sample differ "
            f"from ids of the view by {form.difference} only ({forms}). Write the ids in the "
            "transform of the labels as the view has them."
        )
    if form.asked != form.stored:
        return (
            f"Probable cause: ids in another format, or of other things. {found} ({forms}). Write "
            "the ids in the transform of the labels as the view has them."
        )
    return (
        f"Probable cause: rows of other entities. {found}, in the same form ({forms}). Ingest the "
        "rows of these entities, or name the column of the labels that has the view's ids."
    )


def _later_rows(reasons: Unjoined) -> str:
    found = (
        f"Probable cause: rows known only after the label's instant, for {reasons.later:,} of "
        f"these labels, by {reasons.lateness_ms / DAY_MS:,.2f} days in the median."
    )
    # Events before the instant that were written after it are a backfill.
    if reasons.backfilled * 2 > reasons.later:
        return (
            f"{found} For {reasons.backfilled:,} of them the event was earlier, and the row was "
            "written later: if the column created= of the view's source is the time of a backfill "
            "and not the time at which the row could be read, correct it there."
        )
    return f"{found} Take later instants for the labels, or ingest rows from before them."
