"""Answers one request for an explanation with JSON values, inside of the child process."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.bundle import Bundle, verify_bundle
from registry.explanation.decided import (
    DecisionExplainer,
    DecisionExplanation,
    read_decision_explainer,
)
from registry.explanation.errors import NotExplainedError
from registry.explanation.explainer import Explained, VersionExplainer
from registry.explanation.inputs import input_kinds
from registry.explanation.reasons import REASONS, REASONS_MAX

NOT_ASKED = "it was not asked for"
"""Why there is no change where the question leaves it out."""
NO_REASONS = f"the version has no {REASONS}: its recipe declares no reasons"


class VersionAnswers:
    """Explains rows of one version in words."""

    def __init__(self, files: Mapping[str, bytes], digest: str) -> None:
        """Verify and prepare the version. Raises VersionRefusedError or NotExplainedError."""
        self._bundle: Bundle = verify_bundle(files, trusted_key=None, expected_digest=digest)
        self._explainer = VersionExplainer(self._bundle, files)
        self._kinds = input_kinds(self._bundle.contract)
        # A version whose reasons cannot be used is explained without them, and says why.
        self._decisions: DecisionExplainer | None = None
        self._reasons_note = NO_REASONS
        try:
            self._decisions = read_decision_explainer(self._explainer, files)
        except NotExplainedError as error:
            self._reasons_note = str(error)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Explain a row.

        request  row: F numbers; served: the K scores that the caller got, or none; output: a
                 position or None; reasons_max, language, change: as in ExplainRequest.

        Raises NotExplainedError.
        """
        # The row, the output that is explained, and the score that was served.
        contract = self._bundle.contract
        row = np.array(request["row"], dtype=np.float32)
        if len(row) != contract.width:
            raise NotExplainedError(
                f"the row has {len(row)} values, and the version reads {contract.width}: "
                f"{', '.join(contract.names[:5])} ..."
            )
        output = self._output(request["output"], row)
        served = request["served"]
        if served is not None and len(served) != len(contract.outputs):
            raise NotExplainedError(
                f"{len(served)} scores were recorded for {len(contract.outputs)} outputs"
            )
        score = None if served is None else float(served[output])
        # Contributions, with values in words.
        explained = self._explainer.explain(row, output, score)
        return {
            **self._scored(explained),
            "contributions": [
                {
                    "feature": item.name,
                    "inputs": list(item.inputs),
                    "values": list(item.values),
                    "texts": [
                        self._text(name, value)
                        for name, value in zip(item.inputs, item.values, strict=True)
                    ],
                    "contribution": item.contribution,
                }
                for item in explained.contributions
            ],
            **self._told(request, row, score),
            **({} if request["change"] else {"change_note": NOT_ASKED}),
        }

    def _output(self, asked: int | None, row: NDArray[np.float32]) -> int:
        outputs = self._bundle.contract.outputs
        if asked is not None:
            if asked >= len(outputs):
                raise NotExplainedError(
                    f"there is no output {asked}; the version has {len(outputs)}, from 0"
                )
            return asked
        if len(outputs) == 1:
            return 0
        scores = self._explainer.score(row[np.newaxis])
        return int(self._bundle.reference.scale.predicted(scores)[0])

    def _scored(self, explained: Explained) -> dict[str, Any]:
        """Return the score and what it is compared with."""
        explainer = self._explainer
        return {
            "output": self._bundle.contract.outputs[explained.output],
            "score": explained.score,
            "base": explained.base,
            "margin": explained.margin,
            "unit": explainer.space,
            "background": explainer.background.described,
            "explanation_id": explainer.explanation_id,
            "threshold": self._bundle.reference.decision_threshold,
        }

    def _told(
        self, request: Mapping[str, Any], row: NDArray[np.float32], score: float | None
    ) -> dict[str, Any]:
        """Return decision, reasons and change, or why there are none."""
        # A version without reasons says so.
        decisions = self._decisions
        none: dict[str, Any] = {"decision": "NOT_KNOWN", "reasons": [], "change": []}
        if decisions is None:
            return {**none, "reasons_note": self._reasons_note, "change_note": self._reasons_note}
        languages = decisions.reasons.languages
        language = request["language"] or (languages[0] if languages else "")
        if language and language not in languages:
            raise NotExplainedError(
                f"the version has no reasons in {language!r}; it has {', '.join(languages)}"
            )
        # What the person may be told, and what would have helped.
        found = decisions.explain(
            row, score, most=request["reasons_max"] or REASONS_MAX, with_change=request["change"]
        )
        if not found.adverse:
            note = "the decision is favourable; reasons are given for adverse ones"
            return {**none, "decision": "FAVOURABLE", "reasons_note": note, "change_note": note}
        return {
            "decision": "ADVERSE",
            "reasons": [
                {
                    "group": "" if reason.group is None else reason.group.name,
                    "inputs": list(reason.inputs),
                    "contribution": reason.contribution,
                    "share": reason.share,
                    "problem": reason.problem,
                    "text": (
                        ""
                        if reason.problem or reason.group is None
                        else reason.group.texts.get(language, "")
                    ),
                }
                for reason in found.reasons
            ],
            "reasons_note": "" if found.reasons else "no input moved the score to the adverse side",
            **self._change(found, asked=request["change"]),
        }

    def _change(self, found: DecisionExplanation, *, asked: bool) -> dict[str, Any]:
        names = self._bundle.contract.names
        if found.change is not None:
            return {
                "change": [
                    {
                        "feature": names[position],
                        "before": self._text(names[position], before),
                        "after": self._text(names[position], after),
                    }
                    for position, before, after in found.change.changes
                ],
                "changed_score": found.change.score,
                "change_note": "",
            }
        note = NOT_ASKED
        if asked:
            note = (
                f"none within the person's power: of {found.tried} changes of one or two inputs "
                "that can be changed, none decides otherwise"
                if found.tried
                else "the version names no input that the person can change"
            )
        return {"change": [], "change_note": note}

    def _text(self, name: str, value: float) -> str:
        """Return a value of an input in words."""
        if math.isnan(value):
            return "missing"
        words = self._kinds[name].dictionary if name in self._kinds else ()
        if words and value == int(value) and 0 <= value <= len(words):
            return words[int(value)] if value < len(words) else "unknown"
        return f"{value:.7g}"
