"""What the files of a project declare their views, labels, recipes and model settings with.

A project imports nothing else of Turnout. The signatures are kept in
`tests/turnout/define_signatures.txt`; a change of one is a change for every project.
"""

from features.contract import RequestInput, ViewUse
from features.expectations import Expect, ExpectRows
from features.source import Source
from features.views import Feature, View
from project.model_settings import Model
from registry.explanation.reasons import ReasonGroup, Reasons
from training.labels import Labels
from training.learner import Learner
from training.on_demand import OnDemand
from training.recipe import Capacity, Cost, GateSettings, Recipe

__all__ = [
    "Capacity",
    "Cost",
    "Expect",
    "ExpectRows",
    "Feature",
    "GateSettings",
    "Labels",
    "Learner",
    "Model",
    "OnDemand",
    "ReasonGroup",
    "Reasons",
    "Recipe",
    "RequestInput",
    "Source",
    "View",
    "ViewUse",
]
