"""Tests that docs/features.md is true: its snippets run, and its numbers are the settings."""

import re
from pathlib import Path

import pytest

from features.online.reader import OnlineSettings

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text()


@pytest.mark.walk
def test_features_page_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All snippets run in one namespace, one after the other, in an empty folder."""
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(snippets) == 6
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/features.md", "exec"), names)


def test_features_page_numbers_are_the_settings() -> None:
    """The numbers of failures and of the probe pause are those of OnlineSettings."""
    settings = OnlineSettings()
    assert f"after {settings.failures_to_open} failures" in PAGE
    assert f"a PING every {settings.probe_ms} ms" in PAGE
