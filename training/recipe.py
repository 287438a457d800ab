"""Recipes. A recipe and the data determine a version."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

from features.contract import TIME_NAMES, ModelContract, RequestInput, ViewUse
from features.errors import ContractError
from features.views import View
from registry.explanation.reasons import Reasons, ReasonsError
from registry.types import MODEL_NAME
from training.errors import RecipeError
from training.labels import Labels
from training.learner import Learner
from training.on_demand import (
    NOW,
    ON_DEMAND_MAX,
    OnDemand,
    Term,
    find_column,
    parse_on_demand,
    used_columns,
)

Task = Literal["binary", "multiclass", "regression", "ranking", "anomaly"]
ClassValue = str | int | float | bool
LATER_FIELDS = ("held_out_days", "gap_days", "negatives_share", "task", "unit")
"""Fields that a definition has only where they differ from their defaults."""
OUTCOME_KINDS: dict[Task, tuple[str, ...]] = {
    "binary": ("binary",),
    "multiclass": ("class",),
    "regression": ("number",),
    "ranking": ("binary", "number"),
    "anomaly": ("binary",),
}
"""Kinds of labels that each task learns from or is judged by."""
NEGATIVES_SHARE_MIN = 0.01
THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A threshold at which the decisions on the held-out rows cost least.

    false_positive  the cost of a positive decision on a negative row, above 0.
    false_negative  the cost of a negative decision on a positive row, above 0, in the same unit.
    """

    false_positive: float
    false_negative: float

    def __post_init__(self) -> None:
        if not (0.0 < self.false_positive < math.inf and 0.0 < self.false_negative < math.inf):
            raise RecipeError(
                f"a threshold by cost has the costs {self.false_positive} and "
                f"{self.false_negative}; both must be above 0"
            )

    def definition(self) -> dict[str, Any]:
        """Return the costs as JSON values."""
        return {
            "false_positive": self.false_positive,
            "false_negative": self.false_negative,
        }


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """A threshold at which at most a *share* of the held-out rows, 0 to 1, is decided positive."""

    share: float

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise RecipeError(
                f"a threshold by capacity allows {self.share} of the rows; the share must be above "
                "0 and below 1"
            )

    def definition(self) -> dict[str, Any]:
        """Return the share as a JSON value."""
        return {"share": self.share}


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """Bounds that a version must meet before it may be registered.

    auc_min             smallest AUC on the held-out rows, of the tasks "binary" and "anomaly".
    auc_gain_low_min    bound for the gain over a champion: the low end of the 95 % interval of
                        AUC(candidate) - AUC(champion) on the held-out rows must be above it.
    gain_low_min        the same for the other tasks, in the unit of their main metric. A gain is
                        above 0 where the candidate is better.
    metrics_min         metric -> its smallest value on the held-out rows, of any task.
    metrics_max         metric -> its largest value.
    held_out_rows_min   smallest number of held-out rows.
    difference_max      largest difference of a probability between the learner's library and ONNX,
                        on every certified row. Scores of other tasks may differ by this part of
                        themselves, and of the size that scores of the version usually have.
    without_row_max     largest share of the labels, 0 to 1, for which a view may have no fresh row.
                        Above one half, most of what a model learns of the view is its defaults.
    feature_auc_max     largest AUC that one feature may have alone on the rows to fit on. A feature
                        above it may be known only after the label's instant, or be the label.
    """

    auc_min: float = 0.7
    auc_gain_low_min: float = 0.0
    held_out_rows_min: int = 500
    difference_max: float = 1e-5
    without_row_max: float = 0.5
    feature_auc_max: float = 0.99
    gain_low_min: float = 0.0
    metrics_min: Mapping[str, float] = field(default_factory=dict)
    metrics_max: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 <= self.without_row_max <= 1.0:
            raise RecipeError(
                f"a gate allows {self.without_row_max} of the labels without a row of a view; "
                "without_row_max is a share, from 0 to 1"
            )
        if not 0.5 < self.feature_auc_max <= 1.0:
            raise RecipeError(
                f"a gate allows an AUC of {self.feature_auc_max} to one feature; feature_auc_max "
                "must be above 0.5 and at most 1"
            )

    def definition(self) -> dict[str, Any]:
        """Return the settings as JSON values; what was added later only where it is used."""
        default = asdict(GateSettings())
        later = ("feature_auc_max", "gain_low_min", "metrics_min", "metrics_max")
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in later or value != default[name]
        }


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a version depends on, except the data.

    model            name in the registry. It also salts the split, so that every version of a
                     model is evaluated on rows that no version of it was fitted on.
    setting          name of the recipe among the model's recipes ("champion", "candidate", ...).
    features         the stored features that the model reads, in the order of its input columns.
    inputs           the request inputs that callers send; their columns come after the features.
                     The labels have a column of each.
    on_demand        features that are computed from features, inputs and the request's time; their
                     columns come last.
    withheld         features and inputs that expressions read and the learner is not given.
    label            name of what is learned, such as the event whose probability is the score. It
                     is the name of the output, unless the task is "multiclass".
    task             what the scores are: "binary", the probability of an event; "multiclass", the
                     probability of each of *classes*; "regression", a value in *unit*; "ranking",
                     larger for a better offer among those of one call; or "anomaly", larger for a
                     more unusual row.
    classes          the classes of "multiclass", in the order of the outputs: their names, or
                     name -> the values of the labels that mean it.
    unit             unit of the values of "regression", such as "EUR".
    reasons          what a person is told about a decision, in words; with "binary" and "anomaly".
    entities         the entities that a caller names, in order. Empty: those of the views, in the
                     order in which the views name them.
    labels           where the outcomes come from; None: they are given when the recipe is trained.
    held_out_share   share of the entities that is held out, above 0 and below 1.
    held_out_days    above 0, the labels of so many days up to the newest label are held out, in
                     place of a share of the entities.
    gap_days         days before these whose labels are neither held out nor fitted on. It should be
                     as long as a label's outcome takes, so that no outcome is known in advance.
    negatives_share  share of the negative rows, .01 to 1, that the learner is fitted on. Its
                     scores are corrected for it, and all held-out rows count.
    threshold        a score at or above it is a positive decision; or Cost or Capacity, by which it
                     is chosen on the held-out rows. "anomaly" needs a Capacity, and the other tasks
                     decide without a threshold.
    audit            features for the fairness report. The model need not read them.
    audit_bands      audited number -> the edges of its bands, growing: (30, 50) gives "below 30",
                     "30 to below 50" and "50 and above".

    Raises RecipeError when these contradict each other.
    """

    model: str
    setting: str
    features: tuple[ViewUse, ...]
    label: str
    learner: Learner
    entities: tuple[str, ...] = ()
    labels: Labels | None = None
    seed: int = 7
    held_out_share: float = 0.3
    threshold: float | Cost | Capacity = THRESHOLD
    gate: GateSettings = field(default_factory=GateSettings)
    audit: tuple[ViewUse, ...] = ()
    inputs: tuple[RequestInput, ...] = ()
    on_demand: tuple[OnDemand, ...] = ()
    withheld: tuple[str, ...] = ()
    audit_bands: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    held_out_days: float = 0.0
    gap_days: float = 0.0
    negatives_share: float = 1.0
    task: Task = "binary"
    classes: Sequence[str] | Mapping[str, Sequence[ClassValue]] = ()
    unit: str = ""
    reasons: Reasons | None = None

    def __post_init__(self) -> None:
        try:
            self._check_names()
            self._check_numbers()
            self._check_task()
            # These raise here, not in the middle of training.
            self.contract  # noqa: B018
            self._check_columns()
            self.band_edges  # noqa: B018
            self._check_reasons()
        except (ContractError, RecipeError, ReasonsError) as error:
            raise RecipeError(f"recipe {self.model}/{self.setting}: {error}") from error
        if not self.contract.entities:
            raise RecipeError(
                f"recipe {self.model}/{self.setting} reads no stored feature and names no entity; "
                "name the entities whose ids the labels have, by which rows are held out"
            )
        if self.labels is not None:
            self._check_labels(self.labels)

    def _check_names(self) -> None:
        """Refuse a name that the registry would refuse after the training, and no setting."""
        if not isinstance(self.model, str) or not MODEL_NAME.fullmatch(self.model):
            raise RecipeError(f"the name of its model must match {MODEL_NAME.pattern}")
        if not isinstance(self.setting, str) or not self.setting:
            raise RecipeError("it has no setting; name one, such as 'candidate'")

    def _check_numbers(self) -> None:
        """Refuse shares, days and thresholds outside their ranges."""
        if not 0.0 < self.held_out_share < 1.0:
            raise RecipeError(
                f"it holds out {self.held_out_share} of the entities; it must be above 0 and below "
                "1"
            )
        if isinstance(self.threshold, int | float) and not 0.0 < self.threshold < 1.0:
            raise RecipeError(
                f"it decides at {self.threshold}; the threshold must be above 0 and below 1"
            )
        if not (0.0 <= self.held_out_days < math.inf and 0.0 <= self.gap_days < math.inf):
            raise RecipeError(
                f"it has held_out_days={self.held_out_days} and gap_days={self.gap_days}; both are "
                "days, from 0 on"
            )
        if self.gap_days and not self.held_out_days:
            raise RecipeError(
                f"it has a gap of {self.gap_days} days without held_out_days, and a split by "
                "entities has no gap; name the days that are held out"
            )
        if not NEGATIVES_SHARE_MIN <= self.negatives_share <= 1.0:
            raise RecipeError(
                f"it keeps {self.negatives_share} of the negative rows; negatives_share is from "
                f"{NEGATIVES_SHARE_MIN} to 1"
            )

    def _check_task(self) -> None:
        """Refuse settings that mean nothing for the task, or that it lacks."""
        if self.task not in get_args(Task):
            raise RecipeError(
                f"it has the task {self.task!r}; it is one of {', '.join(get_args(Task))}"
            )
        # What one task needs, the others must not have.
        unfit = {
            "classes": bool(self.classes) and self.task != "multiclass",
            "unit": bool(self.unit) and self.task != "regression",
            "negatives_share": self.negatives_share != 1.0 and self.task != "binary",
            "threshold": self.threshold != THRESHOLD and self.task not in ("binary", "anomaly"),
        }
        for name, wrong in unfit.items():
            if wrong:
                raise RecipeError(f"{name} means nothing for the task {self.task!r}; leave it out")
        if self.task == "anomaly" and not isinstance(self.threshold, Capacity):
            raise RecipeError(
                "a score of how unusual a row is has no unit in which a threshold could be named "
                "before it is learned; say how many rows can be looked at, such as "
                "threshold=Capacity(share=0.01)"
            )
        self._check_classes()
        self._check_gate()

    def _check_classes(self) -> None:
        """Refuse fewer than two classes, and a value of the labels that means two of them."""
        if isinstance(self.classes, str):
            raise RecipeError(f"it has classes={self.classes!r}; give a tuple of names")
        if isinstance(self.classes, Mapping):
            for name, values in self.classes.items():
                # The letters of a text would each be taken for a value.
                if isinstance(values, str) or not isinstance(values, Sequence):
                    raise RecipeError(
                        f"its class {name!r} has the values {values!r}; give a tuple of values, "
                        f"such as ({values!r},)"
                    )
        names = [*self.class_values]
        if self.task == "multiclass" and len(names) < 2:
            raise RecipeError(f"it has the classes {names}; name two or more, in order")
        if not isinstance(self.classes, Mapping) and len(names) != len(self.classes):
            raise RecipeError(f"it names a class twice: {list(self.classes)}")
        meant = [value for values in self.class_values.values() for value in values]
        counts = Counter(map(class_key, meant))
        twice = [value for value in meant if counts[class_key(value)] > 1]
        if twice:
            raise RecipeError(f"{twice[0]!r} means two of its classes; it can mean one only")

    def _check_gate(self) -> None:
        """Refuse bounds of a metric that the task does not have."""
        default = GateSettings()
        by_auc = self.task in ("binary", "anomaly")
        for name in ("gain_low_min",) if by_auc else ("auc_min", "auc_gain_low_min"):
            if getattr(self.gate, name) != getattr(default, name):
                instead = "auc_gain_low_min" if by_auc else "metrics_min and gain_low_min"
                raise RecipeError(
                    f"its gate has {name}, which means nothing for the task {self.task!r}; use "
                    f"{instead}"
                )

    def _check_columns(self) -> None:
        """Refuse on-demand features that are too many or named twice, and useless *withheld*."""
        # Names are those of the learner's columns, so each is there once.
        names = [feature.name for feature in self.on_demand]
        taken = [name for name in names if names.count(name) > 1 or name in self.contract.names]
        if taken or len(names) > ON_DEMAND_MAX:
            raise RecipeError(
                f"on-demand feature {taken[0]!r} has the name of another column; rename it"
                if taken
                else f"{len(names)} on-demand features; the most is {ON_DEMAND_MAX}"
            )
        if names and NOW in self.contract.names:
            raise RecipeError(
                f"a request input is named {NOW!r}, which is the request's time in expressions; "
                "rename the input"
            )
        # What is withheld is there for an expression, and something is left for the learner.
        used = set().union(*(used_columns(term) for _, term in self.on_demand_terms))
        unused = [name for name in self._withheld_columns if name not in used]
        if unused:
            raise RecipeError(
                f"{unused[0]!r} is withheld from the learner, and no expression reads it; leave it "
                "out of the recipe"
            )
        if not self.learner_columns:
            raise RecipeError("every column is withheld; the learner needs one")

    def _check_reasons(self) -> None:
        """Refuse reasons for inputs that the model lacks, or for a task without decisions."""
        if self.reasons is None:
            return
        if self.task not in ("binary", "anomaly"):
            raise RecipeError(
                f"it has reasons, which are for a decision at a threshold, and the task "
                f"{self.task!r} has none; leave them out"
            )
        self.reasons.check_names(self.contract.names)

    def _check_labels(self, labels: Labels) -> None:
        """Refuse labels without the outcome, the ids or the inputs that the model needs."""
        # The outcome.
        kinds = OUTCOME_KINDS[self.task]
        if not labels.value and self.task != "anomaly":
            raise RecipeError(
                f"recipe {self.model}/{self.setting} has the task {self.task!r}, and the labels "
                f"{labels.name!r} name no outcome; give them value=..., the column with it"
            )
        if labels.kind not in kinds:
            raise RecipeError(
                f"recipe {self.model}/{self.setting} has the task {self.task!r}, and the labels "
                f"{labels.name!r} have outcomes of the kind {labels.kind!r}; it needs "
                f"{' or '.join(map(repr, kinds))}: give the labels kind=..."
            )
        if (self.task == "ranking") != bool(labels.group):
            raise RecipeError(
                f"recipe {self.model}/{self.setting} has the task {self.task!r}, and the labels "
                f"{labels.name!r} have the group {labels.group!r}; a ranking needs the column that "
                "is equal in all rows of a call, and the other tasks have none"
            )
        # The ids and the request inputs.
        missing = [name for name in self.contract.entities if name not in labels.entities]
        if missing:
            raise RecipeError(
                f"recipe {self.model}/{self.setting} is keyed by {missing}, which the labels "
                f"{labels.name!r} do not have; they name {list(labels.entities)}"
            )
        names = [item.name for item in self.inputs]
        missing = [name for name in names if name not in labels.inputs]
        if missing:
            raise RecipeError(
                f"recipe {self.model}/{self.setting} reads the request inputs {missing}, and "
                f"the labels {labels.name!r} have inputs={labels.inputs!r}; declare "
                "a column of each, with what the caller would have sent at the label's instant"
            )

    @cached_property
    def contract(self) -> ModelContract:
        """The contract of every version that is trained from the recipe."""
        keyed_by = dict.fromkeys(name for use in self.features for name in use.view.entities)
        without_time = ModelContract(
            entities=self.entities or tuple(keyed_by),
            views=self.features,
            inputs=self.inputs,
            outputs=tuple(self.class_values) or (self.label,),
        )
        reads_time = any(
            NOW in used_columns(parse_on_demand(feature, without_time.names))
            for feature in self.on_demand
        )
        return replace(without_time, request_time=reads_time)

    @cached_property
    def class_values(self) -> dict[str, tuple[ClassValue, ...]]:
        """Class -> the values of the labels that mean it, in the order of the outputs."""
        if isinstance(self.classes, Mapping):
            return {name: tuple(values) for name, values in self.classes.items()}
        return {name: (name,) for name in self.classes}

    @cached_property
    def on_demand_terms(self) -> tuple[tuple[OnDemand, Term], ...]:
        """The on-demand features with what their expressions mean."""
        names = [name for name in self.contract.names if name not in TIME_NAMES]
        return tuple((feature, parse_on_demand(feature, names)) for feature in self.on_demand)

    @cached_property
    def learner_inputs(self) -> tuple[str, ...]:
        """The model inputs that the learner is given, which never has the bare time."""
        withheld = {*self._withheld_columns, *TIME_NAMES}
        return tuple(name for name in self.contract.names if name not in withheld)

    @property
    def learner_columns(self) -> tuple[str, ...]:
        """What the learner is fitted on: *learner_inputs*, then the on-demand features."""
        return (*self.learner_inputs, *(feature.name for feature in self.on_demand))

    @property
    def _withheld_columns(self) -> list[str]:
        return [find_column(name, self.contract.names) for name in self.withheld]

    @cached_property
    def band_edges(self) -> dict[str, tuple[float, ...]]:
        """The edges of *audit_bands* by the full names of the audited features."""
        audited = {
            f"{use.view.name}:{feature.name}": feature
            for use in self.audit
            for feature in use.view.features
            if feature.name in use.features
        }
        edges_of = {}
        for name, edges in self.audit_bands.items():
            full_name = find_column(name, list(audited))
            if audited[full_name].dictionary:
                raise RecipeError(
                    f"audit_bands name {name!r}, a category, each text of which is a group already"
                )
            growing = all(low < high for low, high in pairwise(edges))
            if not edges or not growing or not all(map(math.isfinite, edges)):
                raise RecipeError(
                    f"audit_bands of {name!r} have the edges {edges!r}; give finite numbers that "
                    "grow, such as (30, 50, 65)"
                )
            edges_of[full_name] = tuple(float(edge) for edge in edges)
        return edges_of

    def definition(self) -> dict[str, Any]:
        """Return the recipe as JSON values. Views are named, each with its hash.

        What was added to recipes later is there only where it is used, so older digests stay.
        """
        return {
            "model": self.model,
            "setting": self.setting,
            "features": [_use_definition(use) for use in self.features],
            "label": self.label,
            "learner": self.learner.definition(),
            "entities": list(self.contract.entities),
            "labels": None if self.labels is None else self.labels.name,
            "seed": self.seed,
            "held_out_share": self.held_out_share,
            "threshold": threshold_definition(self.threshold),
            "gate": self.gate.definition(),
            "audit": [_use_definition(use) for use in self.audit],
            **{name: value for name, value in self._later_definition().items() if value},
        }

    def _later_definition(self) -> dict[str, Any]:
        """Return the fields that are left out of a definition where they are empty."""
        return {
            "inputs": [item.definition() for item in self.inputs],
            "on_demand": [feature.definition() for feature in self.on_demand],
            "withheld": list(self.withheld),
            "audit_bands": {name: list(edges) for name, edges in self.band_edges.items()},
            "held_out_days": self.held_out_days,
            "gap_days": self.gap_days,
            "negatives_share": 0.0 if self.negatives_share == 1.0 else self.negatives_share,
            "task": "" if self.task == "binary" else self.task,
            # A list, because JSON objects have no order.
            "classes": [[name, list(values)] for name, values in self.class_values.items()],
            "unit": self.unit,
            "reasons": {} if self.reasons is None else self.reasons.definition(),
        }

    @staticmethod
    def from_definition(
        definition: Mapping[str, Any], views: Mapping[str, View], labels: Mapping[str, Labels]
    ) -> "Recipe":
        """Rebuild a recipe from the return value of `definition`, or from its JSON.

        views   view hash -> view, for every view that the recipe names.
        labels  name -> labels, for those that the recipe names.

        Raises RecipeError when a field is missing or wrong, or a view is absent.
        """
        try:
            # What older definitions lack was added later, with an empty default.
            later: dict[str, Any] = {
                "inputs": tuple(map(RequestInput.from_definition, definition.get("inputs", ()))),
                "on_demand": tuple(OnDemand(**item) for item in definition.get("on_demand", ())),
                "withheld": tuple(definition.get("withheld", ())),
                "audit_bands": {
                    name: tuple(edges) for name, edges in definition.get("audit_bands", {}).items()
                },
                "classes": _classes_of(definition.get("classes", ())),
                # Reasons have no empty form.
                **(
                    {"reasons": Reasons.from_definition(definition["reasons"])}
                    if "reasons" in definition
                    else {}
                ),
                **{name: definition[name] for name in LATER_FIELDS if name in definition},
            }
            # The rest is in every definition, whatever its release.
            return Recipe(
                model=definition["model"],
                setting=definition["setting"],
                features=tuple(_use_of(item, views) for item in definition["features"]),
                label=definition["label"],
                learner=Learner(**definition["learner"]),
                entities=tuple(definition["entities"]),
                labels=None if definition["labels"] is None else labels[definition["labels"]],
                seed=definition["seed"],
                held_out_share=definition["held_out_share"],
                threshold=_threshold_of(definition["threshold"]),
                gate=GateSettings(**definition["gate"]),
                audit=tuple(_use_of(item, views) for item in definition["audit"]),
                **later,
            )
        except (KeyError, TypeError, AttributeError, ContractError, ReasonsError) as error:
            raise RecipeError(f"not a definition of a recipe: {error!r}") from error


def class_key(value: object) -> tuple[str, object]:
    """Return what a value of labels is compared by: 1 equals 1.0, and neither "1" nor true."""
    if isinstance(value, bool):
        return "text", str(value).lower()
    if isinstance(value, int | float):
        return "number", float(value)
    return "text", value


def output_names(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the outputs of a recipe's versions, by its definition."""
    return tuple(name for name, _ in definition.get("classes", ())) or (definition["label"],)


def threshold_definition(threshold: float | Cost | Capacity) -> float | dict[str, Any]:
    """Return a recipe's threshold as JSON values, for recipes and cards."""
    return threshold if isinstance(threshold, int | float) else threshold.definition()


def _threshold_of(definition: float | Mapping[str, Any]) -> float | Cost | Capacity:
    if isinstance(definition, int | float):
        return definition
    return Capacity(**definition) if "share" in definition else Cost(**definition)


def _classes_of(
    definition: Sequence[tuple[str, Sequence[ClassValue]]],
) -> tuple[str, ...] | dict[str, tuple[ClassValue, ...]]:
    """Return the names of the classes alone where each is its own only value."""
    values_of = {name: tuple(values) for name, values in definition}
    if all(values == (name,) for name, values in values_of.items()):
        return tuple(values_of)
    return values_of


def _use_definition(use: ViewUse) -> dict[str, Any]:
    return {
        "view": use.view.name,
        "view_hash": use.view.view_hash,
        "features": list(use.features),
    }


def _use_of(definition: Mapping[str, Any], views: Mapping[str, View]) -> ViewUse:
    return ViewUse(view=views[definition["view_hash"]], features=tuple(definition["features"]))
