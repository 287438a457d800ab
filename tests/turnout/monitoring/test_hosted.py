"""The options of monitoring on the command line of control."""

import argparse
from pathlib import Path

import pytest

from turnout.monitoring.hosted import (
    MonitoringSettings,
    add_monitoring_options,
    monitoring_settings,
)


def settings_of(*arguments: str) -> MonitoringSettings:
    """Return what a command line with these arguments says."""
    parser = argparse.ArgumentParser()
    add_monitoring_options(parser)
    options = parser.parse_args(arguments)
    options.folder = Path("registry")
    return monitoring_settings(options)


def test_urls_of_store_and_database_are_read_from_files(tmp_path: Path) -> None:
    """A password in them stands on no command line."""
    store, database = "redis://sam:hunter2@h", "postgresql://sam:hunter2@h/monitoring"
    (tmp_path / "store").write_text(store)
    (tmp_path / "database").write_text(database)
    settings = settings_of(
        f"--online-store=file:{tmp_path}/store", f"--monitoring-store=file:{tmp_path}/database"
    )
    assert settings.online_store is not None
    assert (settings.online_store.url, settings.store) == (store, database)


@pytest.mark.parametrize("option", ["--online-store", "--monitoring-store"])
def test_password_on_the_command_line_is_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refusal says the way out and does not repeat it."""
    with pytest.raises(SystemExit):
        settings_of(f"{option}=redis://sam:hunter2@h")
    refused = capsys.readouterr().err
    assert "give file:PATH" in refused
    assert "hunter2" not in refused
