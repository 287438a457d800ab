"""Runs in the environment with shap, fairlearn and statsmodels: a JSON answer to each question.

{"kind": "trees", "model": M, "background": [rows], "rows": [rows]}
the answer has the base and the values of shap.TreeExplainer, by row, column and output; M is a
fitted estimator, pickled and written as base64, and the last step of a pipeline is the explained
estimator
{"kind": "linear", the same}
the same of shap.LinearExplainer
{"kind": "groups", "positive": [..], "selected": [..], "groups": [..]}
the answer has fairlearn's rates by group, and its differences and ratios between groups
{"kind": "function", "name": N, "arguments": {..}}
the answer is what the function of statsmodels returns; lists are arrays
{"kind": "strata", "strata": [..], "treated": [0 or 1], "outcomes": [..]}
the answer is the effect, averaged over the strata, by least squares with errors of kind HC2
"""

import base64
import importlib
import json
import pickle
import sys
from typing import Any

import numpy as np


def explain(question: dict[str, Any]) -> dict[str, Any]:
    """Return the base (K,) and the values (N, C, K) of one explainer."""
    import shap

    # The test itself pickled the model.
    model = pickle.loads(base64.b64decode(question["model"]))
    background, rows = (
        np.array(question[name], dtype=np.float64) for name in ("background", "rows")
    )
    if hasattr(model, "steps"):
        background, rows = model[:-1].transform(background), model[:-1].transform(rows)
        model = model[-1]
    if question["kind"] == "trees":
        explainer = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    else:
        masker = shap.maskers.Independent(background, max_samples=len(background))
        explainer = shap.LinearExplainer(model, masker)
    values = np.asarray(explainer.shap_values(rows))
    base = np.atleast_1d(explainer.expected_value)
    return {"base": base.tolist(), "values": values.reshape(*rows.shape, -1).tolist()}


def compare_groups(question: dict[str, Any]) -> dict[str, Any]:
    """Return fairlearn's rates by group, and what it makes of them."""
    from fairlearn import metrics

    truth, decided, groups = (
        np.array(question[name]) for name in ("positive", "selected", "groups")
    )
    frame = metrics.MetricFrame(
        metrics={
            "selection_rate": metrics.selection_rate,
            "tpr": metrics.true_positive_rate,
            "fpr": metrics.false_positive_rate,
        },
        y_true=truth,
        y_pred=decided,
        sensitive_features=groups,
    )
    between = {
        name: float(getattr(metrics, name)(truth, decided, sensitive_features=groups))
        for name in (
            "demographic_parity_difference",
            "demographic_parity_ratio",
            "equal_opportunity_difference",
            "equalized_odds_difference",
            "equalized_odds_ratio",
        )
    }
    return {"rates": frame.by_group.to_dict("index"), **between}


def call_function(question: dict[str, Any]) -> Any:  # noqa: ANN401  a number or lists
    """Return what a function of statsmodels returns, as JSON values."""
    module, _, name = question["name"].rpartition(".")
    arguments = {
        key: np.array(value) if isinstance(value, list) else value
        for key, value in question["arguments"].items()
    }
    found = getattr(importlib.import_module(module), name)(**arguments)
    return np.asarray(found, dtype=np.float64).tolist()


def effect_in_strata(question: dict[str, Any]) -> list[float]:
    """Return the effect, and the low and the high end of its interval."""
    import statsmodels.api as sm

    treated, outcomes = (np.array(question[name], float) for name in ("treated", "outcomes"))
    levels, stratum = np.unique(question["strata"], return_inverse=True)
    # A mean of each stratum without acting, and an effect of acting in each.
    member = np.eye(len(levels))[stratum]
    design = np.column_stack([member, member * treated[:, None]])
    fit = sm.OLS(outcomes, design).fit(cov_type="HC2", use_t=False)
    average = np.concatenate([np.zeros(len(levels)), member.mean(axis=0)])
    found = fit.t_test(average)
    return [float(found.effect[0]), *np.ravel(found.conf_int(0.05)).tolist()]


ANSWERS = {
    "trees": explain,
    "linear": explain,
    "groups": compare_groups,
    "function": call_function,
    "strata": effect_in_strata,
}


if __name__ == "__main__":
    json.dump([ANSWERS[item["kind"]](item) for item in json.load(sys.stdin)], sys.stdout)
