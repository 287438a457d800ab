"""On-demand features: expressions over request inputs, stored features and the request's time.

An expression is written as in Python and read with Python's own parser, of whose trees only what
is listed here is taken:

    numbers       12, 0.5
    columns       amount (a request input or a stored feature), usage.last_topup (a feature of the
                  view usage), now (the request's time in Unix seconds)
    arithmetic    + - * /
    comparisons   < <= > >= == !=, joined by `and`, `or` and `not`
    functions     where(comparison, a, b), is_missing(x), clip(x, low, high), min(a, b), max(a, b),
                  abs(x), floor(x), log1p(x)

A comparison is a truth. Where an expression's value is a truth, it is 1 or 0. Nothing is evaluated
here: training.export.on_demand_graph makes ONNX nodes of the terms, which training and gateways
both run.
"""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from features.views import FLOAT32_MAX, NAME
from training.errors import RecipeError

NOW = "now"
EXPRESSION_LENGTH_MAX = 500
"""Characters of an expression."""
DEPTH_MAX = 100
"""Terms of an expression that stand within each other."""
ON_DEMAND_MAX = 64
"""On-demand features of a recipe."""

ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
FUNCTIONS = {
    "where": "where(comparison, a, b)",
    "is_missing": "is_missing(x)",
    "clip": "clip(x, low, high)",
    "min": "min(a, b)",
    "max": "max(a, b)",
    "abs": "abs(x)",
    "floor": "floor(x)",
    "log1p": "log1p(x)",
}
"""Function -> how it is called."""
TRUTHS = {*COMPARISONS.values(), "and", "or", "not", "is_missing"}
"""Operations whose result is a truth."""
LANGUAGE = f"there are + - * /, comparisons, and, or, not, {', '.join(FUNCTIONS.values())}"


@dataclass(frozen=True, kw_only=True)
class OnDemand:
    """A column that is computed from the inputs of a row, in training and in every call.

    expression  as this module describes.
    default     value where the expression has none: a column that it uses is missing, a division
                by zero, a value beyond float32. None means NaN, for learners that take it.

    Raises RecipeError when the name or the default is none.
    """

    name: str
    expression: str
    default: float | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise RecipeError(
                f"the name of on-demand feature {self.name!r} does not match {NAME.pattern}"
            )
        if self.default is not None and not abs(self.default) <= FLOAT32_MAX:
            raise RecipeError(
                f"on-demand feature {self.name!r} has the default {self.default}; give a number "
                "that float32 can hold, or None for NaN"
            )

    def definition(self) -> dict[str, Any]:
        """Return the feature as JSON values, for recipes and cards."""
        return {"name": self.name, "expression": self.expression, "default": self.default}


@dataclass(frozen=True, slots=True)
class Number:
    """A number of an expression."""

    value: float


@dataclass(frozen=True, slots=True)
class Column:
    """A model input by its name in ModelContract.names, or NOW."""

    name: str


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator or a function with its arguments. "neg" is a minus before one term."""

    name: str
    arguments: "tuple[Term, ...]"


Term: TypeAlias = Number | Column | Operation


def is_truth(term: Term) -> bool:
    """Return whether the value of *term* is a truth, not a number. A truth is never missing."""
    return isinstance(term, Operation) and term.name in TRUTHS


def used_columns(term: Term) -> set[str]:
    """Return the names of the columns that *term* uses."""
    if isinstance(term, Operation):
        return set().union(*(used_columns(argument) for argument in term.arguments))
    return {term.name} if isinstance(term, Column) else set()


def parse_on_demand(feature: OnDemand, columns: Sequence[str]) -> Term:
    """Return the term of an on-demand feature.

    columns  the stored features as `view:feature`, and the request inputs.

    Raises RecipeError, which names the feature, its expression, and the way out.
    """
    try:
        term = _Parser(columns).parse(feature.expression)
    except RecipeError as error:
        raise RecipeError(
            f"on-demand feature {feature.name!r} = {feature.expression[:80]!r}: {error}"
        ) from error
    return term


def find_column(name: str, columns: Sequence[str]) -> str:
    """Return the one of *columns* that *name* means: `amount`, `last_topup`, `usage.last_topup`.

    Raises RecipeError when it is none, or several.
    """
    whole = name.replace(".", ":")
    found = [column for column in columns if whole in (column, column.partition(":")[2])]
    if len(found) == 1:
        return found[0]
    shown = [column.replace(":", ".") for column in found or columns]
    if found:
        raise RecipeError(f"`{name}`: it may be {' and '.join(shown)}; write the one that is meant")
    raise RecipeError(
        f"`{name}`: no such column; the recipe's features and inputs are {', '.join(shown)}, and "
        f"the request's time is {NOW}"
    )


class _Parser:
    """Makes terms of the trees of Python's parser."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._text = ""
        self._depth = 0

    def parse(self, text: str) -> Term:
        """Return the term of *text*. Raises RecipeError, which says what is wrong with it."""
        self._text = text
        if len(text) > EXPRESSION_LENGTH_MAX:
            raise RecipeError(
                f"{len(text)} characters; the most is {EXPRESSION_LENGTH_MAX}: write several "
                "features, or compute a part in the view"
            )
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise RecipeError(f"it is no expression ({error}); {LANGUAGE}") from error
        term = self._term(tree.body)
        if not used_columns(term):
            raise RecipeError("it uses no column, so it is the same for every row")
        return term

    def _term(self, node: ast.expr) -> Term:
        """Return the term of one node and all below it."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise RecipeError(
                f"more than {DEPTH_MAX} terms within each other; write several features"
            )
        term = self._term_of(node)
        self._depth -= 1
        return term

    def _term_of(self, node: ast.expr) -> Term:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return _constant(value)
            case ast.Name() | ast.Attribute(value=ast.Name()):
                return Column(self._resolve(node))
            case ast.BinOp(op=operator) if type(operator) in ARITHMETIC:
                left, right = self._number(node.left), self._number(node.right)
                return Operation(ARITHMETIC[type(operator)], (left, right))
            case ast.UnaryOp(op=ast.USub()):
                return Operation("neg", (self._number(node.operand),))
            case ast.UnaryOp(op=ast.Not()):
                return Operation("not", (self._truth(node.operand),))
            case ast.BoolOp():
                name = "and" if isinstance(node.op, ast.And) else "or"
                return self._joined(name, [self._truth(value) for value in node.values])
            case ast.Compare(ops=[operator], comparators=[right_node]):
                left, right = self._number(node.left), self._number(right_node)
                if type(operator) in COMPARISONS:
                    return Operation(COMPARISONS[type(operator)], (left, right))
            case ast.Compare(ops=[_, _, *_]):
                raise self._refused(node, "join comparisons with `and`")
            case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS and not node.keywords:
                return self._call(name, node)
        raise self._refused(node, LANGUAGE)

    def _call(self, name: str, node: ast.Call) -> Term:
        """Return the term of a function with its arguments."""
        expected = FUNCTIONS[name].count(",") + 1
        if len(node.args) != expected:
            raise self._refused(node, f"it is {FUNCTIONS[name]}")
        first = self._truth(node.args[0]) if name == "where" else self._number(node.args[0])
        arguments = (first, *(self._number(argument) for argument in node.args[1:]))
        if name == "clip":
            return Operation("min", (Operation("max", arguments[:2]), arguments[2]))
        return Operation(name, arguments)

    @staticmethod
    def _joined(name: str, truths: list[Term]) -> Term:
        joined = truths[0]
        for truth in truths[1:]:
            joined = Operation(name, (joined, truth))
        return joined

    def _number(self, node: ast.expr) -> Term:
        term = self._term(node)
        if is_truth(term):
            raise self._refused(node, "a number is needed: write where(comparison, 1, 0)")
        return term

    def _truth(self, node: ast.expr) -> Term:
        term = self._term(node)
        if not is_truth(term):
            raise self._refused(node, "a comparison is needed, such as x > 0 or is_missing(x)")
        return term

    def _resolve(self, node: ast.Name | ast.Attribute) -> str:
        name = self._source(node)
        return NOW if name == NOW else find_column(name, self._columns)

    def _refused(self, node: ast.expr, reason: str) -> RecipeError:
        return RecipeError(f"`{self._source(node)}`: {reason}")

    def _source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._text.strip(), node) or ast.unparse(node)


def _constant(value: float) -> Number:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecipeError("a number is beyond float64; write a smaller one")
    return Number(number)
