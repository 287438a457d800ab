"""Breaches of a rule that stood when the rule was made, and are still to be mended.

`known.json` has a number for each rule and key. A key is a room, a file or an arrow between two
folders. More breaches than the number fail the test, and so do fewer: then the number must fall,
which `make fix` does. The file loses a rule with its last breach, and goes when it is empty.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.house.sources import REPOSITORY, fail_on_breaches

PATH = REPOSITORY / "tests" / "house" / "known.json"
LOWER = "TURNOUT_LOWER_KNOWN"
"""With this in the environment, numbers that are too high are lowered instead of failing."""

Known = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Breach:
    """One place where a rule is broken."""

    key: str
    """What is counted together: a room, a file, or an arrow such as `models -> predict`."""
    message: str
    """Where it is, what is wrong, and how to mend it."""


def fail_on_new_breaches(rule: str, breaches: Iterable[Breach]) -> None:
    """Fail unless each key has exactly as many breaches of *rule* as `known.json` says."""
    known = _read()
    allowed = known.get(rule, {})
    messages: dict[str, list[str]] = defaultdict(list)
    for breach in breaches:
        messages[breach.key].append(breach.message)
    counts = {key: len(lines) for key, lines in messages.items()}

    fallen = {key: counts.get(key, 0) for key in allowed if counts.get(key, 0) < allowed[key]}
    if fallen and os.environ.get(LOWER):
        known[rule] = {key: n for key, n in {**allowed, **fallen}.items() if n}
        _write(known)
        fallen = {}
    fail_on_breaches(
        [
            *(
                f"{line} [{key}: {counts[key]}, known {allowed.get(key, 0)}]"
                for key, lines in messages.items()
                if counts[key] > allowed.get(key, 0)
                for line in dict.fromkeys(lines)
            ),
            *(
                f"{rule}: {key} has {count} breaches, and tests/house/known.json still allows "
                f"{allowed[key]}; `make fix` lowers the number"
                for key, count in fallen.items()
            ),
        ]
    )


def _read() -> Known:
    if not PATH.exists():
        return {}
    known: Known = json.loads(PATH.read_text(encoding="utf-8"))
    return known


def _write(known: Known) -> None:
    remaining = {rule: numbers for rule, numbers in known.items() if numbers}
    if not remaining:
        PATH.unlink()
        return
    text = json.dumps(remaining, indent=2, sort_keys=True) + "\n"
    PATH.write_text(text, encoding="utf-8")
