"""The page for data scientists says what is true: its snippets run, in order."""

import re
from pathlib import Path

import pytest

from features.online.reader import OnlineSettings

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text()


@pytest.mark.walk
def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in an empty folder, as a reader would."""
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(snippets) == 4
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/features.md", "exec"), names)


def test_the_numbers_are_the_settings() -> None:
    """What the page says about failures and probes."""
    settings = OnlineSettings()
    assert f"after {settings.failures_to_open} failures" in PAGE
    assert f"a PING every {settings.probe_ms} ms" in PAGE
