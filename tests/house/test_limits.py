"""docs/limits.md lists every setting of the gateway and the constants beside them."""

import importlib
import json
import re
from dataclasses import fields

from access import bounds, streams
from gateway.settings import Settings
from tests.house.sources import REPOSITORY, fail_on_breaches

PAGE = (REPOSITORY / "docs" / "limits.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w.]+)` \| `([^`]*)` \| (.*) \|$", re.MULTILINE)


def rows_below(heading: str) -> dict[str, tuple[str, str]]:
    """Return name -> (value, reason) of the tables under *heading*."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return {name: (value, reason) for name, value, reason in ROW.findall(section)}


def test_limits_page_has_every_setting_with_its_default() -> None:
    """Each setting has a row with its default, as JSON, and a reason."""
    rows = rows_below("Gateway")
    fail_on_breaches(
        [
            f"docs/limits.md needs a row: | `{item.name}` | `{json.dumps(item.default)}` | why |"
            for item in fields(Settings)
            if rows.get(item.name, ("", ""))[0] != json.dumps(item.default)
        ]
    )
    fail_on_breaches(
        [
            f"{name} is no setting any more: delete its row"
            for name in rows.keys() - Settings.__annotations__
        ]
    )
    fail_on_breaches(
        [f"{name} has no reason" for name, (_, reason) in rows.items() if not reason.strip()]
    )


def test_limits_page_has_the_constants_of_other_rooms() -> None:
    """Their names begin with the room."""
    rows = rows_below("Of the registry, the rollouts and recipes")
    rows |= rows_below("Of pushed rows")
    rows |= rows_below("Of monitoring")
    assert len(rows) > 30
    fail_on_breaches(
        [
            f"docs/limits.md says {name} is {value}; the code says {found}"
            for name, (value, _) in rows.items()
            for module, constant in [name.rsplit(".", 1)]
            for found in [json.dumps(getattr(importlib.import_module(module), constant))]
            if found != value
        ]
    )


def test_limits_page_has_the_constants_of_the_code() -> None:
    """`supervision.slots.HELLO_MS_MAX` means gateway.supervision.slots.HELLO_MS_MAX."""
    rows = rows_below("Fixed in the code")
    assert len(rows) > 10
    values = {
        name: json.dumps(getattr(importlib.import_module(f"gateway.{module}"), constant))
        for name in rows
        for module, constant in [name.rsplit(".", 1)]
    }
    fail_on_breaches(
        [
            f"docs/limits.md says {name} is {value}; the code says {values[name]}"
            for name, (value, _) in rows.items()
            if values[name] != value
        ]
    )


def test_limits_page_has_the_bounds_of_registry_and_rollout() -> None:
    """Each bound of access/bounds.py and access/streams.py has a row with its value."""
    constants = {name: value for name, value in vars(bounds).items() if isinstance(value, int)}
    values = {
        **constants,
        **bounds.TEXT_BYTES_MAX,
        **bounds.ITEMS_MAX_BY_FIELD,
        **{name: value for name, value in vars(streams).items() if isinstance(value, int)},
        **dict(streams.SERVER_OPTIONS),
    }
    rows = {name: value for name, (value, _) in rows_below("Registry and rollout").items()}
    fail_on_breaches(
        [
            f"docs/limits.md says {name} is {rows.get(name)}; the code says {values.get(name)}"
            for name in sorted(rows.keys() | values.keys())
            if rows.get(name) != str(values.get(name))
        ]
    )
