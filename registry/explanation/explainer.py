"""Explains scores of one version, exactly, from the version's own files.

A contribution says by how much an input moved the margin of a score away from the mean margin of
the background. The margin is the sum that the model computes: the log-odds of boosted trees and of
logistic models, the probability of a forest, the value of a regression. `explain` refuses whatever
does not add up to the margin that ONNX Runtime computes, or to the served score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from features.contract import TIME_NAMES
from protos.onnx_graph_pb2 import Model
from registry.bundle import Bundle
from registry.explanation.background import Background, read_background
from registry.explanation.errors import NotExplainedError
from registry.explanation.model_form import INPUTS, SCORES, ModelForm, find_form
from registry.explanation.source_columns import SourceTracer
from registry.golden import ScoreTolerance
from registry.scoring import GOLDEN_TOLERANCE, allowed_differences, load_session, open_onnx
from stats.score_scale import CLASS_TASKS
from stats.tree_shapley import TreeExplainer, TreeShapeError

METHOD = "interventional Shapley values, 1"
"""Changes when the same files would be explained otherwise; it is part of an explanation's id."""
ADDITIVE_MAX = 1e-4
"""How far base and contributions may be from the margin of the score."""
ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""How exact a probability is as ONNX Runtime gives it, for graphs without a tensor of the sum."""
SCORES_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class InputContribution:
    """What one input contributes, or several that a computed column joins.

    name          the input; for several, the computed columns.
    inputs        the inputs, as ModelContract.names has them.
    values        their values in the row.
    contribution  in the unit of the margin.
    """

    name: str
    inputs: tuple[str, ...]
    values: tuple[float, ...]
    contribution: float


@dataclass(frozen=True, eq=False, slots=True)
class Explained:
    """One score and where it comes from.

    score          as ONNX Runtime gives it now.
    margin         base plus all contributions.
    contributions  the largest first.
    """

    output: int
    score: float
    base: float
    margin: float
    contributions: tuple[InputContribution, ...]


@dataclass(frozen=True, slots=True)
class ContributionLine:
    """Columns that are made of the same inputs: names and positions of both."""

    name: str
    inputs: tuple[str, ...]
    positions: tuple[int, ...]
    columns: tuple[int, ...]


class VersionExplainer:
    """Explains scores of one verified version. It holds an open session, so it lives in a child."""

    def __init__(self, bundle: Bundle, files: Mapping[str, bytes]) -> None:
        """Prepare a version; this takes up to seconds, and each explanation milliseconds.

        files  the files of the version, whose digests were checked.

        Raises NotExplainedError if the model is none that can be explained exactly, and
        VersionRefusedError if the version does not load.
        """
        self.bundle = bundle
        self.background: Background = read_background(bundle, files)
        self.form: ModelForm = find_form(bundle.onnx, len(bundle.contract.outputs))
        # Of which inputs each summed column is made; then run the background.
        load_session(bundle)
        self._tensors = list(dict.fromkeys([SCORES, self.form.raw, self.form.matrix]))
        self._tensors = [name for name in self._tensors if name != INPUTS]
        session = open_onnx(_with_outputs(bundle.onnx, self._tensors))
        # The package's Python wrapper would repeat checks of `load_session`.
        self._run = session.run
        tracer = SourceTracer(self.form.nodes, bundle.contract.width)
        self._sources = tracer.sources(self.form.matrix)
        self.background_scores, self._columns = self._background_columns(len(self._sources))
        self.lines = self._lines_of(self._sources)
        self._trees: TreeExplainer | None = None
        if self.form.trees is not None:
            self._trees = self._tree_explainer(self._columns)
        self._mean = self._columns.mean(axis=0)

    @property
    def explanation_id(self) -> str:
        """What the answer depends on beside the row: version, background and method."""
        parts = [self.bundle.digest, self.background.digest, METHOD]
        return sha256_hex(canonical_json(parts))[:16]

    @property
    def space(self) -> str:
        """The unit of margins and contributions."""
        if self.form.link != "identity":
            return "log-odds"
        return "probability" if self.bundle.reference.task in CLASS_TASKS else "value"

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores (N, K) of *rows* (N, F) by the version's own graph."""
        parts = [
            self._run(
                [SCORES], {INPUTS: np.ascontiguousarray(rows[start : start + SCORES_AT_ONCE])}
            )
            for start in range(0, len(rows), SCORES_AT_ONCE)
        ]
        scores: NDArray[np.float32] = np.concatenate([part[0] for part in parts])
        return scores

    def explain(
        self,
        row: NDArray[np.float32],
        output: int = 0,
        served: float | None = None,
        against: TreeExplainer | NDArray[np.float64] | None = None,
    ) -> Explained:
        """Explain one output of a (F,) row.

        served   the score that a caller got; None: the row was not served.
        against  another background, as `against` gives it; None: the version's own.

        Raises NotExplainedError if the score is none, or the contributions do not add up to it.
        """
        # Score the row, with the columns that are summed and the sums themselves.
        matrix = np.ascontiguousarray(row, dtype=np.float32)[np.newaxis]
        found = dict(zip(self._tensors, self._run(self._tensors, {INPUTS: matrix}), strict=True))
        score = float(found[SCORES][0, output])
        if not np.isfinite(score):
            raise NotExplainedError(f"the score of this row is {score}, which nothing explains")
        allowed = float(allowed_differences(self._tolerance, found[SCORES])[0, output])
        if served is not None and not abs(score - served) <= allowed:
            raise NotExplainedError(
                f"the version scores this row {score:.7g}, and {served:.7g} was served; the "
                f"difference may be {allowed:.2g}. The row that was recorded is not the one that "
                "was scored, or this host's ONNX Runtime scores otherwise"
            )
        # Share the margin out among the columns.
        columns = np.asarray(found.get(self.form.matrix, matrix))
        base, (shares,) = self._shares(columns, output, against)
        margin = base + float(shares.sum())
        self._check_sum(found, margin, columns, output, allowed)
        return Explained(output, score, base, margin, self._folded(row, shares))

    def contributions(
        self, rows: NDArray[np.float32], output: int = 0
    ) -> tuple[float, NDArray[np.float64]]:
        """Return the base, and what `lines` contribute to the margins of *rows*, (N, lines).

        For means over many rows. Nothing is compared with ONNX Runtime's sums here, as `explain`
        does for each row.
        """
        base, parts = 0.0, []
        for start in range(0, len(rows), SCORES_AT_ONCE):
            part = np.ascontiguousarray(rows[start : start + SCORES_AT_ONCE])
            columns = part
            if self.form.matrix != INPUTS:
                columns = self._run([self.form.matrix], {INPUTS: part})[0]
            base, shares = self._shares(columns, output, None)
            parts.append(
                np.stack([shares[:, list(line.columns)].sum(axis=1) for line in self.lines], axis=1)
            )
        return base, np.concatenate(parts)

    def plain_columns(self) -> dict[int, int]:
        """Return input -> the summed column that has its value unchanged, where there is one."""
        found: dict[int, int] = {}
        for column, inputs in enumerate(self._sources):
            if len(inputs) == 1:
                (position,) = inputs
                own, values = self.background.rows[:, position], self._columns[:, column]
                if np.array_equal(own, values, equal_nan=True):
                    found.setdefault(position, column)
        return found

    def against(self, chosen: NDArray[np.bool_]) -> "TreeExplainer | NDArray[np.float64]":
        """Return the part of the background that is *chosen*, (R,) bool, for `explain`."""
        columns = self._columns[chosen]
        if self.form.trees is None:
            mean: NDArray[np.float64] = columns.mean(axis=0)
            return mean
        return self._tree_explainer(columns)

    @property
    def _tolerance(self) -> ScoreTolerance:
        return self.bundle.tolerance or GOLDEN_TOLERANCE

    def _background_columns(
        self, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.floating[Any]]]:
        """Return the scores (R, K) of the background, and its columns (R, C) that are summed."""
        rows = self.background.rows
        try:
            found = dict(zip(self._tensors, self._run(self._tensors, {INPUTS: rows}), strict=True))
        except Exception as error:
            raise NotExplainedError(f"the background cannot be scored: {error}") from error
        columns = np.asarray(found.get(self.form.matrix, rows))
        if columns.shape != (len(rows), width):
            raise NotExplainedError(
                f"its sum is over {columns.shape[1:]} columns, and {width} were followed"
            )
        if self.form.linear is not None:
            if len(self.form.linear.coefficients) != width:
                raise NotExplainedError(f"its coefficients are not of the {width} columns")
            if not np.isfinite(columns).all():
                raise NotExplainedError(
                    "a row of the background has a missing value, and a linear model has no sum "
                    "for it; seal a background without missing values"
                )
        return found[SCORES], columns

    def _tree_explainer(self, columns: NDArray[np.floating[Any]]) -> TreeExplainer:
        assert self.form.trees is not None
        paths, width = self.form.trees.paths, columns.shape[1]
        if paths.columns > width:
            raise NotExplainedError(f"its trees compare column {paths.columns} of {width}")
        try:
            return TreeExplainer(replace(paths, columns=width), columns)
        except TreeShapeError as error:
            raise NotExplainedError(str(error)) from error

    def _shares(
        self,
        columns: NDArray[np.floating[Any]],
        output: int,
        against: "TreeExplainer | NDArray[np.float64] | None",
    ) -> tuple[float, NDArray[np.float64]]:
        """Return the base and what each of the columns (N, C) contributes, (N, C)."""
        combined, shift = self.form.combined[output], float(self.form.shifts[output])
        if self.form.linear is None:
            trees = self._trees if against is None else against
            assert isinstance(trees, TreeExplainer)
            return trees.base(combined) + shift, trees.contributions(columns, combined)
        mean = self._mean if against is None else against
        assert not isinstance(mean, TreeExplainer)
        coefficients = self.form.linear.coefficients @ combined
        base = mean @ coefficients + self.form.linear.intercepts @ combined + shift
        shares: NDArray[np.float64] = (columns.astype(np.float64) - mean) * coefficients
        return float(base), shares

    def _check_sum(
        self,
        found: Mapping[str, NDArray[Any]],
        margin: float,
        columns: NDArray[np.floating[Any]],
        output: int,
        allowed: float,
    ) -> None:
        """Refuse contributions that add up to another margin or score than ONNX Runtime's."""
        raw = found[self.form.raw][0].astype(np.float64)
        computed, rounding = _margin_of(self.form, raw, output)
        # A float32 of thousands has no 1e-4, so a value may be as inexact as its version states.
        inexact = max(allowed, ROUNDING * abs(computed)) if self.space == "value" else 0.0
        bound = max(ADDITIVE_MAX, inexact) + rounding
        if not abs(margin - computed) <= bound and np.isfinite(computed):
            raise NotExplainedError(
                f"base and contributions add up to {margin:.7g}, and the model's sum is "
                f"{computed:.7g}; they may differ by {bound:.2g}, so this is no explanation of it"
            )
        score = self._score_of(margin, columns, output)
        difference = abs(score - float(found[SCORES][0, output]))
        if not difference <= max(allowed, bound if self.space == "value" else 0.0):
            raise NotExplainedError(
                f"base and contributions make the score {score:.7g}, and the model's is "
                f"{float(found[SCORES][0, output]):.7g}, so this is no explanation of it"
            )

    def _score_of(self, margin: float, columns: NDArray[np.floating[Any]], output: int) -> float:
        """Return the score that has this margin."""
        if self.form.link == "logistic":
            return float(0.5 * (1.0 + np.tanh(0.5 * margin)))
        if self.form.link == "softmax":
            # The other classes are needed too; all margins are less their mean.
            margins = np.array(
                [self._sum_of(columns, other) for other in range(len(self.form.combined))]
            )
            margins[output] = margin
            odds = np.exp(margins - margins.max())
            return float(odds[output] / odds.sum())
        factor = self.form.odds_factor
        return margin if factor == 1.0 else margin / (margin + (1.0 - margin) / factor)

    def _sum_of(self, columns: NDArray[np.floating[Any]], output: int) -> float:
        """Return the margin of an output for one row, (1, C)."""
        combined, shift = self.form.combined[output], float(self.form.shifts[output])
        if self._trees is not None:
            return float(self._trees.sums(columns, combined)[0]) + shift
        assert self.form.linear is not None
        sums = columns[0] @ self.form.linear.coefficients + self.form.linear.intercepts
        return float(sums @ combined) + shift

    def _lines_of(self, sources: tuple[frozenset[int], ...]) -> list[ContributionLine]:
        """Return which columns belong together, because they are made of the same inputs.

        The request's time belongs to nobody: a column of it and one input is the input's.
        """
        names = self.bundle.contract.names
        times = frozenset(names.index(name) for name in TIME_NAMES if name in names)
        columns_of: dict[frozenset[int], list[int]] = {}
        for column, inputs in enumerate(sources):
            columns_of.setdefault(inputs - times or inputs, []).append(column)
        computed = self.bundle.card.get("learner_columns")
        shown = computed if isinstance(computed, list) and len(computed) == len(sources) else None
        lines = []
        for inputs, columns in columns_of.items():
            ordered = tuple(names[index] for index in sorted(inputs))
            if len(ordered) == 1 or shown is None:
                name = ordered[0] if len(ordered) == 1 else " and ".join(ordered) or "a constant"
            else:
                name = " and ".join(str(shown[column]) for column in columns)
            lines.append(ContributionLine(name, ordered, tuple(sorted(inputs)), tuple(columns)))
        return lines

    def _folded(
        self,
        row: NDArray[np.float32],
        shares: NDArray[np.float64],
    ) -> tuple[InputContribution, ...]:
        """Return the contributions by input, the largest first."""
        folded = [
            InputContribution(
                line.name,
                line.inputs,
                tuple(float(row[index]) for index in line.positions),
                float(shares[list(line.columns)].sum()),
            )
            for line in self.lines
        ]
        return tuple(sorted(folded, key=lambda item: -abs(item.contribution)))


def _margin_of(form: ModelForm, raw: NDArray[np.float64], output: int) -> tuple[float, float]:
    """Return the margin of an output by what the summing operator gave, and how exact it is.

    raw  (K',) its result, from which its own link is taken back. A probability of 1 as float32 has
         no margin any more: NaN, and the score alone is compared.
    """
    combined, shift = form.combined[output], float(form.shifts[output])
    used = np.flatnonzero(combined)
    if form.raw_link == "identity":
        return float(raw @ combined) + shift, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = np.log(raw) - (np.log1p(-raw) if form.raw_link == "logistic" else 0.0)
        # ONNX Runtime subtracts from 1, so a small probability is no more exact than a large one.
        slopes = ROUNDING / (raw * (1.0 - raw) if form.raw_link == "logistic" else raw)
        margin = float(sums[used] @ combined[used]) + shift
        rounding = float(slopes[used] @ np.abs(combined[used])) + ROUNDING
    if not (np.isfinite(margin) and np.isfinite(rounding)):
        return float("nan"), 0.0
    return margin, rounding


def _with_outputs(onnx: bytes, tensors: list[str]) -> bytes:
    """Return the file with *tensors* among its outputs; its nodes stay as they are."""
    model = Model.FromString(onnx)
    present = {item.name for item in model.graph.output}
    for name in tensors:
        if name not in present:
            model.graph.output.add(name=name)
    return model.SerializeToString()
