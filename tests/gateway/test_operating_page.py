"""docs/operating.md names only what exists."""

import re
from dataclasses import fields
from pathlib import Path

from gateway.settings import Settings
from gateway.supervision.exposition import SUPERVISOR_FAMILIES
from gateway.telemetry.metrics import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


def test_every_setting_and_metric_it_names_exists() -> None:
    """A renamed setting or metric must be renamed there too."""
    words = re.findall(r"`([a-z]+_[a-z_]+)(?:\{[a-z,]+\})?`", PAGE.read_text(encoding="utf-8"))
    settings = {item.name for item in fields(Settings)}
    metrics = {*FAMILIES, *SUPERVISOR_FAMILIES}
    counters = {f"{name}_total" for name in metrics}
    assert len(words) > 30
    assert not [word for word in words if word not in settings | metrics | counters]
