"""Metrics of an adopted version on labelled sample rows, which may contain its training rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.adopted.answers import Answers, Task
from training.adopted.proven_graph import all_finite
from training.errors import AdoptionError
from training.evaluation.metrics import Bootstrap, Estimate, evaluate_scores
from training.evaluation.task_metrics import evaluate_values

SEED = 0
NOTE = "measured on sample rows, which may contain rows that the model was trained on"
YES = ("1", "true", "yes", "1.0")
NO = ("0", "false", "no", "0.0")


def sample_metrics(
    labels: NDArray[Any], scores: NDArray[np.float32], answers: Answers, *, threshold: float
) -> dict[str, Estimate]:
    """Return the metrics of the task with 95 % intervals.

    labels  (S,) classes or values as the sample has them; None and NaN are missing.
    scores  (S, K).

    Rows without a label or a finite score are left out. Raises AdoptionError when the labels do not
    fit the task.
    """
    known = np.array([label is not None and label == label for label in labels.tolist()])
    known &= all_finite(scores)
    if not known.any():
        raise AdoptionError("no sample row has both a label and a finite score")
    labels, values = labels[known], scores[known].astype(np.float64)
    if answers.task == "binary":
        positive = _positive(labels, answers.serve[0])
        return evaluate_scores(positive, values[:, 0], threshold=threshold, seed=SEED)
    if answers.task == "multiclass":
        return _class_metrics(labels, values, answers.serve)
    return _value_metrics(labels, values, answers.task)


def _positive(labels: NDArray[Any], served: str) -> NDArray[np.bool_]:
    """Return which labels are the served class. AdoptionError if all or none are."""
    names = [_name(label) for label in labels.tolist()]
    alike = YES if served.casefold() in YES else NO if served.casefold() in NO else ()
    positive = np.array([name in (served.casefold(), *alike) for name in names], dtype=np.bool_)
    if positive.all() or not positive.any():
        raise AdoptionError(
            f"{int(positive.sum())} of {len(names)} labels are the served class {served!r}; the "
            f"labels are {sorted(set(names))[:5]}. Name another --label column, or another class "
            "with --answer serve=CLASS"
        )
    return positive


def _name(label: object) -> str:
    whole = isinstance(label, float) and label.is_integer()
    return str(int(label) if whole and isinstance(label, float) else label).casefold()


def _class_metrics(
    labels: NDArray[Any], scores: NDArray[np.float64], classes: tuple[str, ...]
) -> dict[str, Estimate]:
    names = [name.casefold() for name in classes]
    actual = np.array([_name(label) for label in labels.tolist()])
    predicted = np.array(names)[scores.argmax(axis=1)]
    right = (predicted == actual).astype(np.float64)
    if not np.isin(actual, names).any():
        raise AdoptionError(
            f"no label is one of the classes {list(classes)[:5]}; the labels are "
            f"{sorted(set(actual.tolist()))[:5]}. Name another --label column"
        )
    bootstrap = Bootstrap(len(right), seed=SEED)
    return bootstrap.intervals({"accuracy": bootstrap.ratio(right, np.ones(len(right)))})


def _value_metrics(
    labels: NDArray[Any], scores: NDArray[np.float64], task: Task
) -> dict[str, Estimate]:
    if scores.shape[1] != 1:
        raise AdoptionError(
            f"--label measures one output, and the version has {scores.shape[1]} ({task}); leave "
            "--label out"
        )
    try:
        actual = np.array([float(label) for label in labels.tolist()])
    except (TypeError, ValueError) as error:
        raise AdoptionError(f"the labels of a {task} are numbers: {error}") from error
    return evaluate_values(actual, scores[:, 0], seed=SEED)
