"""docs/operating.md names existing settings and metrics only."""

import re
from dataclasses import fields
from pathlib import Path

from gateway.settings import Settings
from gateway.supervision.exposition import HOST_FAMILIES, SUPERVISOR_FAMILIES
from gateway.telemetry.metrics import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


def test_operating_page_names_existing_settings_and_metrics() -> None:
    """A renamed setting or metric must be renamed on the page too."""
    names = re.findall(r"`([a-z]+_[a-z_]+)(?:\{[a-z,]+\})?`", PAGE.read_text(encoding="utf-8"))
    settings = {setting.name for setting in fields(Settings)}
    metrics = {*FAMILIES, *SUPERVISOR_FAMILIES, *HOST_FAMILIES}
    counters = {f"{name}_total" for name in metrics}
    assert len(names) > 30
    assert not [name for name in names if name not in settings | metrics | counters]
