"""Asks other people's libraries, in environments of their own, what they say of some rows.

NannyML's and Evidently's environments hold some 200 packages and 2.3 GB together, and NannyML wants
releases of LightGBM and plotly below ours. So they are made at night only. pandas is below 3 for
Evidently, and statsmodels is named for NannyML, because 0.13.1 imports it and does not say so.

shap, fairlearn and statsmodels have one environment of 1.1 GB, of which CatBoost is .4. It has our
releases of the libraries that fitted the models, so that pickled models can be read there.
"""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.own_environment import environment_python

NANNYML = ("nannyml==0.13.1", "statsmodels==0.15.0")
EVIDENTLY = ("evidently==0.7.23", "pandas==2.3.3")
FITTED_BY = ("scikit-learn", "numpy", "lightgbm", "xgboost-cpu", "catboost")
LIBRARIES = (
    "shap==0.51.0",
    "fairlearn==0.15.0",
    "statsmodels==0.15.0",
    *(f"{name}=={version(name)}" for name in FITTED_BY),
)
NANNYML_CALLER = Path(__file__).with_name("nannyml_caller.py")
EVIDENTLY_CALLER = Path(__file__).with_name("evidently_caller.py")
LIBRARIES_CALLER = Path(__file__).with_name("libraries_caller.py")
ANSWER_S_MAX = 600.0


def ask_nannyml(questions: list[dict[str, Any]]) -> list[Any]:
    """Return NannyML's answer to each of the questions that nannyml_caller.py describes."""
    return _ask(environment_python("nannyml", NANNYML), NANNYML_CALLER, questions)


def ask_evidently(questions: list[dict[str, Any]]) -> list[Any]:
    """Return Evidently's answer to each of the questions that evidently_caller.py describes."""
    return _ask(environment_python("evidently", EVIDENTLY), EVIDENTLY_CALLER, questions)


def ask_libraries(questions: list[dict[str, Any]]) -> list[Any]:
    """Return an answer to each of the questions that libraries_caller.py describes."""
    return _ask(environment_python("libraries", LIBRARIES), LIBRARIES_CALLER, questions)


def ask_statsmodels(name: str, arguments: list[dict[str, Any]]) -> list[Any]:
    """Return what a function of statsmodels.stats says of each of *arguments*.

    name  module and function, as in "proportion.proportion_confint".
    """
    return ask_libraries(
        [
            {"kind": "function", "name": f"statsmodels.stats.{name}", "arguments": item}
            for item in arguments
        ]
    )


def _ask(python: Path, caller: Path, questions: list[dict[str, Any]]) -> list[Any]:
    # NannyML and Evidently report to their makers that they are used, unless these are set.
    environment = {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1", "HOME": "/nonexistent"}
    done = subprocess.run(
        [str(python), "-W", "ignore", str(caller)],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        timeout=ANSWER_S_MAX,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[Any] = json.loads(done.stdout)
    assert len(answers) == len(questions)
    return answers
