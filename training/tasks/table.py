"""The tasks of recipes by their names."""

from training.recipe import Task
from training.tasks.anomaly import AnomalyOutcomes
from training.tasks.binary import BinaryOutcomes
from training.tasks.multiclass import ClassOutcomes
from training.tasks.outcomes import Outcomes
from training.tasks.ranking import RankedOutcomes
from training.tasks.regression import ValueOutcomes

TASKS: dict[Task, type[Outcomes]] = {
    "binary": BinaryOutcomes,
    "multiclass": ClassOutcomes,
    "regression": ValueOutcomes,
    "ranking": RankedOutcomes,
    "anomaly": AnomalyOutcomes,
}
