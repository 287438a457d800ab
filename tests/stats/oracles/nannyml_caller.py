"""Runs in the environment with NannyML: reads questions as JSON, prints an answer to each.

{"kind": "cbpe", "reference": [rows], "live": [rows], "chunk": N, "threshold": t}
rows are [score, outcome]; the answer has NannyML's estimate of each metric by chunk
{"kind": "drift", "method": M, "categorical": bool, "reference": [..], "live": [..], "chunk": N}
the answer has the value and the alert of each chunk
"""

import json
import sys
from typing import Any

import nannyml
import pandas as pd

METRICS = ("roc_auc", "accuracy", "precision", "recall")


def estimate(question: dict[str, Any]) -> dict[str, Any]:
    """Return the estimates of CBPE, and whether it calibrated."""
    frames = []
    for name in ("reference", "live"):
        rows = pd.DataFrame(question[name], columns=["score", "outcome"])
        rows["decided"] = (rows["score"] >= question["threshold"]).astype(int)
        frames.append(rows)
    estimator = nannyml.CBPE(
        y_pred_proba="score",
        y_pred="decided",
        y_true="outcome",
        problem_type="classification_binary",
        metrics=list(METRICS),
        chunk_size=question["chunk"],
    )
    estimator.fit(frames[0])
    found = estimator.estimate(frames[1].drop(columns="outcome")).filter(period="analysis").to_df()
    estimates = {metric: found[metric, "value"].tolist() for metric in METRICS}
    return {"calibrated": bool(estimator.needs_calibration), **estimates}


def drift(question: dict[str, Any]) -> dict[str, Any]:
    """Return the values of one method, and the alerts."""
    kind = "categorical_methods" if question["categorical"] else "continuous_methods"
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=["x"],
        treat_as_categorical=["x"] if question["categorical"] else None,
        chunk_size=question["chunk"],
        **{kind: [question["method"]]},
    )
    reference, live = (
        pd.DataFrame({"x": list(map(str, values)) if question["categorical"] else values})
        for values in (question["reference"], question["live"])
    )
    calculator.fit(reference)
    found = calculator.calculate(live).filter(period="analysis").to_df()
    column = found["x"][question["method"]]
    return {"values": column["value"].tolist(), "alerts": column["alert"].astype(bool).tolist()}


if __name__ == "__main__":
    questions = json.load(sys.stdin)
    answers = [estimate(item) if item["kind"] == "cbpe" else drift(item) for item in questions]
    json.dump(answers, sys.stdout)
