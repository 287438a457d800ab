"""Proposes how a foreign model becomes a version, and asks what cannot be known.

A column of the model is matched with a feature by its name, or sent by callers. Names are compared
without case and punctuation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from features.views import Feature, View
from training.adopted.answers import REQUEST, Answers, Source, Task, answered
from training.adoption.foreign import ForeignModel, ForeignOutput, InputKind, Transform
from training.errors import AdoptionError

SERVED_KINDS = ("probabilities", "values")
"""Kinds of outputs that can be served, the best first."""
POSITIVE_CLASSES = {
    frozenset(pair): pair[1]
    for pair in (("0", "1"), ("-1", "1"), ("false", "true"), ("no", "yes"), ("n", "y"))
}
"""Pairs of classes whose positive class is certain."""
MISSING_TEXTS = ("", "nan", "none", "null", "missing", "na", "unknown")
UNKNOWN_TEXTS = ("unknown", "other", "others")
NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ForeignColumn:
    """One column of an input of a foreign graph."""

    foreign_input: str
    column: int
    name: str
    kind: InputKind
    known_texts: tuple[str, ...]
    """The words that the graph knows, in order; empty for numbers, or if the graph says none."""


@dataclass(frozen=True, slots=True)
class KnownFeature:
    """A feature that a column may come from."""

    view: View
    feature: Feature

    @property
    def name(self) -> str:
        """`view:feature`, as in ModelContract.names."""
        return f"{self.view.name}:{self.feature.name}"


@dataclass(frozen=True, slots=True)
class Question:
    """Something that the foreign file does not say."""

    key: str
    """The key of the answers file and of `--answer KEY=VALUE`."""
    text: str
    proposal: str
    choices: tuple[str, ...] = ()
    """The possible answers; empty: any text."""
    yes_or_no: bool = False
    """Whether the proposal is only to be accepted; another answer is written into the file."""


@dataclass(frozen=True, slots=True)
class AnswerProposal:
    """Answers, of which those to *questions* are proposals."""

    answers: Answers
    questions: tuple[Question, ...]


def foreign_columns(foreign: ForeignModel) -> list[ForeignColumn]:
    """Return all columns of all inputs, with distinct names."""
    columns = [
        ForeignColumn(
            item.name,
            index,
            name,
            item.kind,
            item.categories[index] if index < len(item.categories) else (),
        )
        for item in foreign.inputs
        for index, name in enumerate(item.columns)
    ]
    counts: dict[str, int] = {}
    for column in columns:
        counts[column.name] = counts.get(column.name, 0) + 1
    return [
        column
        if counts[column.name] == 1
        else replace(column, name=f"{column.foreign_input}.{column.name}.{column.column}")
        for column in columns
    ]


def propose(
    foreign: ForeignModel,
    known: Sequence[KnownFeature],
    given: Mapping[str, Any],
    *,
    by_order: bool = False,
) -> AnswerProposal:
    """Return answers for *foreign*, and the questions that *given* leaves open.

    known     features that columns may come from; of equal names the first wins.
    given     answers so far (`checked_answers`).
    by_order  the features were chosen for this model: without one equal name, as many features as
              columns are matched by their order.

    Raises AdoptionError when *given* contradicts the file.
    """
    questions: list[Question] = []
    columns = foreign_columns(foreign)
    # Where each column comes from.
    inputs = _propose_inputs(columns, known, given, questions, by_order=by_order)
    # What is served.
    output = _propose_output(foreign, given, questions)
    transform = _propose_transform(output, given, questions)
    serve, task = _propose_serve(foreign, output, transform, given, questions)
    # What stands for words that the model does not know.
    unknown, missing = _propose_words(columns, inputs, given, questions)
    threshold = given.get("threshold")
    answers = Answers(
        inputs=inputs,
        output=output.name,
        serve=serve,
        task=task,
        transform=transform,
        threshold=None if threshold is None else float(threshold),
        entities=_entities(inputs, known, given),
        unknown=unknown,
        missing=missing,
    )
    return AnswerProposal(answers, tuple(questions))


def with_answer(given: Mapping[str, Any], question: Question, value: str) -> dict[str, Any]:
    """Return *given* with the answer to *question*."""
    answer: Any = [value] if question.key == "serve" else value
    keys = ("unknown", "missing") if question.key == "words" else (question.key,)
    return {**given, **dict.fromkeys(keys, answer)}


def _propose_inputs(
    columns: Sequence[ForeignColumn],
    known: Sequence[KnownFeature],
    given: Mapping[str, Any],
    questions: list[Question],
    *,
    by_order: bool,
) -> dict[str, Source]:
    """Return the source of each column; ask if one of them is a guess."""
    answers: Mapping[str, Source] = given.get("inputs", {})
    names = {column.name for column in columns}
    unused = [name for name in answers if name not in names]
    if unused:
        raise AdoptionError(
            f"the answers name the columns {unused[:NAMES_SHOWN]}, which the model does not have; "
            f"it has {sorted(names)[:NAMES_SHOWN]}... Delete these lines of [inputs]"
        )
    _check_sources(answers, known)
    # Equal names first; then, for features that were chosen for this model, the order.
    guesses = {column.name: _feature_of(column, known) for column in columns}
    guesses = {name: feature for name, feature in guesses.items() if name not in answers}
    matched = any(guesses.values())
    if by_order and not matched and not answers and len(known) == len(columns):
        fitting = [_fits(column, item) for column, item in zip(columns, known, strict=True)]
        if all(fitting):
            guesses = {c.name: item for c, item in zip(columns, known, strict=True)}
            matched = True
    guessed = {name: item.name for name, item in guesses.items() if item is not None}
    if matched:
        # Callers send what has no feature, which the question says too.
        questions.append(_inputs_question(guessed, len(guesses) - len(guessed)))
    sources: dict[str, Source] = {}
    for column in columns:
        sources[column.name] = answers.get(column.name, guessed.get(column.name, REQUEST))
    return sources


def _check_sources(answers: Mapping[str, Source], known: Sequence[KnownFeature]) -> None:
    features = {item.name for item in known}
    for column, source in answers.items():
        if isinstance(source, str) and source != REQUEST and source not in features:
            raise AdoptionError(
                f"inputs.{column} = {source!r}; there is no such feature. Features are "
                f"{sorted(features)[:NAMES_SHOWN]}, written view:feature; {REQUEST!r} is a column "
                "that callers send"
            )


def _inputs_question(guessed: Mapping[str, str], others: int) -> Question:
    pairs = ", ".join(f"{name} = {feature}" for name, feature in guessed.items())
    rest = f" Callers send the other {others}." if others else ""
    return Question(
        key="inputs",
        text=f"These columns come from views: {pairs}.{rest}",
        proposal="accept; or one --answer inputs.COLUMN=view:feature (or request) for each column",
        yes_or_no=True,
    )


def _feature_of(column: ForeignColumn, known: Sequence[KnownFeature]) -> KnownFeature | None:
    """Return the feature of the column's name and kind; None if several views have one.

    A name with the view in front, as `usage_plan`, is of one view only.
    """
    name = folded_name(column.name)
    fitting = [item for item in known if _fits(column, item)]
    of_view = [i for i in fitting if name == folded_name(f"{i.view.name}{i.feature.name}")]
    found = of_view or [item for item in fitting if name == folded_name(item.feature.name)]
    return found[0] if len(found) == 1 else None


def _fits(column: ForeignColumn, item: KnownFeature) -> bool:
    # A number of the model is no position in the dictionary of a feature.
    return (column.kind == "text") == bool(item.feature.dictionary)


def folded_name(name: str) -> str:
    """Return *name* without case and punctuation."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _propose_output(
    foreign: ForeignModel, given: Mapping[str, Any], questions: list[Question]
) -> ForeignOutput:
    outputs = {output.name: output for output in foreign.outputs if output.kind in SERVED_KINDS}
    if "output" in given:
        if given["output"] not in outputs:
            raise AdoptionError(
                f"output = {given['output']!r}; the outputs that can be served are {list(outputs)}"
            )
        return outputs[given["output"]]
    if not outputs:
        raise AdoptionError(
            "the model gives only a label, and no score. Export it with probabilities "
            "(predict_proba), or with its decision function"
        )
    ranked = sorted(outputs.values(), key=lambda item: SERVED_KINDS.index(item.kind))
    best = [output for output in ranked if output.kind == ranked[0].kind]
    if len(best) > 1:
        names = tuple(output.name for output in best)
        text = "Which output is the score?"
        questions.append(Question("output", text, names[0], names))
    return ranked[0]


def _propose_transform(
    output: ForeignOutput, given: Mapping[str, Any], questions: list[Question]
) -> Transform:
    if "transform" in given:
        transform: Transform = given["transform"]
        return transform
    if output.kind != "values" or "logit" not in folded_name(output.name):
        return "none"
    proposed: Transform = "sigmoid" if output.width == 1 else "softmax"
    text = f"The output {output.name!r} seems to be logits. What makes probabilities of them?"
    questions.append(Question("transform", text, proposed, ("none", "sigmoid", "softmax")))
    return proposed


def served_names(foreign: ForeignModel, output: ForeignOutput) -> tuple[str, ...]:
    """Return a name for each column of *output*: its class, or else its number.

    Raises AdoptionError when the file does not say how many columns there are.
    """
    width = output.width or len(output.classes)
    if not width and output.name in foreign.truth:
        width = foreign.truth[output.name].shape[1]
    if not width:
        raise AdoptionError(
            f"output {output.name!r} does not say how many columns it has; export the model with "
            "the shape of its outputs"
        )
    if len(output.classes) == width and len(set(output.classes)) == width:
        return output.classes
    return tuple(str(index) for index in range(width))


def _propose_serve(
    foreign: ForeignModel,
    output: ForeignOutput,
    transform: Transform,
    given: Mapping[str, Any],
    questions: list[Question],
) -> tuple[tuple[str, ...], Task]:
    """Return the served classes or columns, and the task."""
    names = served_names(foreign, output)
    are_values = output.kind == "values" and transform == "none"
    if "serve" in given:
        serve = tuple(_class_of(value, names) for value in given["serve"])
    elif len(names) == 2 and not are_values and transform != "sigmoid":
        # Of two classes one is served, because the other is 1 minus it.
        certain = POSITIVE_CLASSES.get(frozenset(name.casefold() for name in names))
        positive = next((n for n in names if n.casefold() == certain), names[1])
        if certain is None:
            text = "Which class is the positive one, whose probability is the score?"
            questions.append(Question("serve", text, positive, names))
        serve = (positive,)
    else:
        serve = names
    task: Task = "regression" if are_values else "binary" if len(serve) == 1 else "multiclass"
    return serve, given.get("task", task)


def _class_of(value: str, names: tuple[str, ...]) -> str:
    for name in names:
        if value.casefold() == name.casefold():
            return name
    raise AdoptionError(f"serve = {value!r}; the output has {list(names)}")


def _propose_words(
    columns: Sequence[ForeignColumn],
    inputs: Mapping[str, Source],
    given: Mapping[str, Any],
    questions: list[Question],
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the words for unknown and for missing values of each column of words."""
    unknown: dict[str, str] = {}
    missing: dict[str, str] = {}
    asked = []
    for column in columns:
        if column.kind != "text" or not isinstance(inputs[column.name], str):
            continue
        found = [answered(given, key, column.name) for key in ("unknown", "missing")]
        if None in found:
            asked.append(column.name)
        unknown[column.name] = _first(found[0], _known_word(column, UNKNOWN_TEXTS))
        missing[column.name] = _first(found[1], _known_word(column, MISSING_TEXTS))
    if asked:
        proposals = {repr(word) for name in asked for word in (unknown[name], missing[name])}
        questions.append(
            Question(
                key="words",
                text=f"Which word does the model get for an unknown or missing text in "
                f"{', '.join(asked[:NAMES_SHOWN])}{'...' if len(asked) > NAMES_SHOWN else ''}?",
                proposal=" and ".join(sorted(proposals)),
            )
        )
    return unknown, missing


def _first(answer: str | None, proposal: str) -> str:
    return proposal if answer is None else answer


def _known_word(column: ForeignColumn, candidates: Sequence[str]) -> str:
    """Return the column's own word for it; else a text that the model does not know."""
    for candidate in candidates:
        for word in column.known_texts:
            if word.casefold() == candidate:
                return word
    return "" if "" not in column.known_texts else "unknown"


def _entities(
    inputs: Mapping[str, Source], known: Sequence[KnownFeature], given: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the entities of the views that are read, after those that were given."""
    names = dict.fromkeys(given.get("entities", ()))
    used = {source for source in inputs.values() if isinstance(source, str)}
    for item in known:
        if item.name in used:
            names.update(dict.fromkeys(item.view.entities))
    return tuple(names)
