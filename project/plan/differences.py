"""What differs between applied definitions and those of the project's files. No I/O.

The class of a change says what follows from it:

    descriptive  texts for people. Nothing is computed anew.
    formatting   the same SQL in another layout. The applied text stays, and its hash with it.
    value        values may change. A view gets a new edition beside the old one.
    breaking     callers or stored rows of today do not fit any more.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Literal

from project.definitions import SECTIONS, ProjectDefinitions
from project.policies import policy_digests
from training.recipe import output_names

Kind = Literal["added", "changed", "removed"]
Impact = Literal["", "descriptive", "formatting", "value", "breaking"]

DESCRIPTIVE_MODEL_KEYS = {"owner", "purpose", "tier", "score_meaning"}
HASH_KEYS = {"hash", "view_hash"}
"""Keys that follow from others, so that a line about them would say nothing."""
DETAILS_MAX = 20
VALUE_CHARACTERS_MAX = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    section: str
    """One of SECTIONS."""
    name: str
    kind: Kind
    impact: Impact
    """Empty for what is new, and for what is removed without breaking anything."""
    details: tuple[str, ...]
    """What differs, a line each, such as "default of topups: 1 -> 0"."""
    old_hash: str = ""
    """Hash of the applied edition of a view; empty for everything else."""
    new_hash: str = ""


def with_applied_texts(
    applied: ProjectDefinitions | None, local: ProjectDefinitions
) -> ProjectDefinitions:
    """Return *local* as an apply writes it, so that nothing changes that need not.

    SQL that is only laid out anew keeps its applied text and hash, with the new text as `layout`:
    so a reformatted view keeps its rows. An item that an older release wrote without the fields
    that have their defaults stays as it is.
    """
    if applied is None:
        return local
    # Views first, because recipes name the hashes of their views.
    views: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    for name, view in local.views.items():
        old, kept = applied.views.get(name), view
        if old is not None and _only_laid_out(old["canonical"], view["canonical"]):
            renamed[view["hash"]] = old["hash"]
            kept = {**view, "canonical": old["canonical"], "hash": old["hash"]}
        views[name] = _with_layout(kept, view, kept["canonical"], view["canonical"])
    # Labels and recipes follow.
    labels = {}
    for name, item in local.labels.items():
        old, kept = applied.labels.get(name), item
        if old is not None and _only_laid_out(old, item):
            kept = {**item, "transform": old["transform"]}
        labels[name] = _with_layout(kept, item, kept, item)
    recipes = {
        name: {
            **recipe,
            "features": _with_hashes(recipe["features"], renamed),
            "audit": _with_hashes(recipe["audit"], renamed),
        }
        for name, recipe in local.recipes.items()
    }

    # What the files say again stays as an older release may have written it.
    def as_applied(section: str, items: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _as_applied(applied, section, name, item) for name, item in items.items()}

    return replace(
        local,
        views=as_applied("views", views),
        labels=as_applied("labels", labels),
        recipes=as_applied("recipes", recipes),
        models=as_applied("models", local.models),
    )


def _with_layout(
    kept: Mapping[str, Any],
    item: Mapping[str, Any],
    kept_sql: Mapping[str, Any],
    item_sql: Mapping[str, Any],
) -> dict[str, Any]:
    """Return *kept* with the text of *item* as its layout, if that is another text."""
    text = item.get("layout", item_sql["transform"])
    bare = {key: value for key, value in kept.items() if key != "layout"}
    return bare if text == kept_sql["transform"] else {**bare, "layout": text}


def _as_applied(
    applied: ProjectDefinitions, section: str, name: str, item: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the applied item if only fields are new that have their defaults."""
    old = applied.section(section).get(name)
    if old is None or old == item or applied.rewritten(section, name) != item:
        return item
    return old


def _with_hashes(uses: list[dict[str, Any]], renamed: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{**use, "view_hash": renamed.get(use["view_hash"], use["view_hash"])} for use in uses]


def _only_laid_out(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two definitions differ, and only in the layout of their transform."""
    rests = [{**item, "transform": "", "layout": ""} for item in (old, new)]
    differs = old["transform"] != new["transform"]
    return rests[0] == rests[1] and differs and same_sql(old["transform"], new["transform"])


def same_sql(one: str, other: str) -> bool:
    """Whether two transforms are one query in different layout.

    SQLGlot parses both. Texts that it cannot parse in full count as different.
    """
    import sqlglot  # it takes .3 s to import, and few plans need it
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    # SQLGlot warns about what it does not know, and such texts count as different.
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)
    try:
        trees = [sqlglot.parse_one(text, read="duckdb") for text in (one, other)]
    except SqlglotError:
        return False
    if any(tree.find(exp.Command) for tree in trees):
        return False
    texts = [tree.sql(dialect="duckdb", comments=False) for tree in trees]
    return texts[0] == texts[1] and bool(trees[0] == trees[1])


def changes_between(
    applied: ProjectDefinitions | None, local: ProjectDefinitions
) -> tuple[Change, ...]:
    """Return every change from *applied* to *local*, by section and name."""
    before = applied or ProjectDefinitions(name=local.name)
    target = with_applied_texts(applied, local)
    changes: list[Change] = []
    for section in SECTIONS:
        old, new = before.section(section), target.section(section)
        for name in sorted({*old, *new}):
            if name not in old:
                change = Change(section, name, "added", "", (), new_hash=_hash(new[name]))
            elif name not in new:
                change = Change(section, name, "removed", "", (), old_hash=_hash(old[name]))
            elif old[name] == new[name]:
                continue
            else:
                change = _changed(section, name, before.rewritten(section, name), new[name])
            changes.append(change)
    return tuple(changes)


def _hash(definition: Mapping[str, Any]) -> str:
    return str(definition.get("hash", ""))


def _changed(section: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """Return the change of an item that both have, each as this release writes it."""
    # The layout is a change only where nothing else is.
    before, after = (
        {key: value for key, value in item.items() if key != "layout"} for item in (old, new)
    )
    details = tuple(_limited(_differences("", before, after)))
    hashes = (_hash(before), _hash(after))
    if before == after:
        text = "only the layout of the SQL differs; the applied text and its hash stay"
        return Change(section, name, "changed", "formatting", (text,), *hashes)
    impact = _impact(section, name, before, after)
    if not details:
        details = ("it reads another edition of a view",)
    if section == "views" and hashes[0] == hashes[1] and before["source"] != after["source"]:
        details = (*details, "the edition stays: its rows now come from another place")
    return Change(section, name, "changed", impact, details, *hashes)


def _impact(section: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Impact:
    """Return the class of a change that is more than layout."""
    if section == "views":
        if old["canonical"]["entities"] != new["canonical"]["entities"]:
            return "breaking"
        same_values = old["hash"] == new["hash"] and old["source"] == new["source"]
        return "descriptive" if same_values else "value"
    if section == "recipes":
        # Callers name the entities, and read the output by its name.
        asked = [(item["entities"], output_names(item)) for item in (old, new)]
        return "value" if asked[0] == asked[1] else "breaking"
    if section == "models":
        differing = {key for key in {*old, *new} if old.get(key) != new.get(key)}
        return "descriptive" if differing <= DESCRIPTIVE_MODEL_KEYS else "value"
    if section == "policies":
        same_digests = policy_digests({name: old}) == policy_digests({name: new})
        return "descriptive" if same_digests else "value"
    return "value"


def _differences(where: str, old: object, new: object) -> Iterator[str]:
    """Yield a line for each value that differs below *where*."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new} - HASH_KEYS):
            inner = key if where in ("", "canonical") else f"{key} of {where}"
            yield from _differences(inner, old.get(key), new.get(key))
        return
    named = [_by_name(item) for item in (old, new)]
    if named[0] is not None and named[1] is not None:
        # Features by name, so that a line says which feature has changed.
        for name in dict.fromkeys([*named[0], *named[1]]):
            if name not in named[1]:
                yield f"{name} is removed"
            elif name not in named[0]:
                yield f"{name} is added"
            else:
                yield from _differences(name, named[0][name], named[1][name])
        if list(named[0]) != list(named[1]) and sorted(named[0]) == sorted(named[1]):
            yield f"the order of {where} differs"
        return
    yield f"{where}: {' -> '.join(_short_pair(old, new))}"


def _by_name(items: object) -> dict[str, Any] | None:
    """Return a list of named tables by name; None for any other value."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    key = "name" if all("name" in item for item in items) else "view"
    if not all(key in item for item in items):
        return None
    return {str(item[key]): item for item in items}


def _short_pair(old: object, new: object) -> tuple[str, str]:
    """Return two values in one line each. Long texts are cut around the first difference."""
    before, after = (" ".join(str(value).split()) for value in (old, new))
    pairs = enumerate(zip_longest(before, after))
    same = next((number for number, (one, other) in pairs if one != other), 0)
    first = max(0, same - VALUE_CHARACTERS_MAX // 2)
    return _short(before, first), _short(after, first)


def _short(text: str, first: int) -> str:
    if len(text) <= VALUE_CHARACTERS_MAX:
        return text
    beginning = "... " if first else ""
    end = first + VALUE_CHARACTERS_MAX - len(beginning)
    return beginning + (text[first:] if end >= len(text) else text[first : end - 4] + " ...")


def _limited(lines: Iterator[str]) -> Iterator[str]:
    """Yield the first DETAILS_MAX lines and the number of the others."""
    rest = 0
    for number, line in enumerate(lines):
        if number < DETAILS_MAX:
            yield line
        else:
            rest += 1
    if rest:
        yield f"and {rest} more"
