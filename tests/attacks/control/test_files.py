"""F18: nobody else on the machine reads models, salts, tokens or logs."""

import os
import stat
from pathlib import Path

import pytest

from tests.walks.running_system import turnout_up

pytestmark = pytest.mark.walk


@pytest.mark.attack("F18")
def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Another user reads the files of a system that was started with umask 000."""
    state = tmp_path / "state"
    # Folders of an earlier edition, which everybody may enter.
    for folder in ("gateway/versions", "logs", "registry"):
        (state / folder).mkdir(parents=True)
    before = os.umask(0)
    try:
        with turnout_up(state) as system:
            label = system.register("tiny", tmp_path / "files")
            system.approve("tiny", label, "initial")
            system.deploy("tiny", label)
            open_to_others = [
                f"{stat.filemode(path.lstat().st_mode)} {path.relative_to(state)}"
                for path in state.rglob("*")
                if stat.S_IMODE(path.lstat().st_mode) & 0o077
            ]
    finally:
        os.umask(before)
    assert (state / "gateway" / "deployments" / "tiny.signed").exists()
    # They were there, and their folders let nobody in.
    assert open_to_others == []
