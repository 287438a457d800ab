"""How often a property is tried: a third of its examples, always the same, in `make unit`.

`make nightly` tries ten times all of them, and others every night.
"""

import os

from hypothesis import settings

EXAMPLES_DIVISOR = int(os.environ.get("TURNOUT_EXAMPLES", "0"))
"""So many times all examples, drawn anew; 0: a third, the same ones."""


def examples(count: int) -> settings:
    """Decorate a property that is worth *count* examples; no deadline, our machines are shared."""
    if EXAMPLES_DIVISOR:
        return settings(max_examples=count * EXAMPLES_DIVISOR, deadline=None)
    return settings(max_examples=(count + 2) // 3, derandomize=True, deadline=None)
