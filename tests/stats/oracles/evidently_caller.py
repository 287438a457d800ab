"""Runs in the environment with Evidently: reads questions as JSON, prints an answer to each.

{"method": M, "categorical": bool, "reference": [values], "live": [values]}
the answer is Evidently's value of drift. A missing value is null.
"""

import json
import sys
from typing import Any

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift


def drift(question: dict[str, Any]) -> float:
    """Return the value of drift of one column."""
    kind = "categorical_columns" if question["categorical"] else "numerical_columns"
    definition = DataDefinition(**{kind: ["x"]})
    reference, live = (
        Dataset.from_pandas(
            pd.DataFrame({"x": list(map(str, values)) if question["categorical"] else values}),
            data_definition=definition,
        )
        for values in (question["reference"], question["live"])
    )
    report = Report([ValueDrift(column="x", method=question["method"])])
    return float(report.run(live, reference).dict()["metrics"][0]["value"])


if __name__ == "__main__":
    json.dump([drift(item) for item in json.load(sys.stdin)], sys.stdout)
