"""A trainer that is killed with SIGKILL in any step goes on: the same bytes, no step done twice."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from tests.training.population import PopulationStore, profile_labels, profile_recipe
from training.learner import Learner
from training.retrain.champion_now import judge_champion
from training.retrain.step_cache import NO_STEPS, StepCache

STEPS = ("rows", "fit and convert", "evaluate", "compare with the champion", "gate")
QUICK = ("fit and convert", "gate")
"""Steps that `make test` tries. The nightly tests try all."""
FINISHED = {"rows": [], "fit and convert": ["rows"]}
"""Step -> the steps that are kept when it begins; later steps have both."""


class CountingStore(PopulationStore):
    """Counts the joins."""

    joins = 0

    def training_set(self, *arguments: object, **options: object):  # type: ignore[no-untyped-def]  # noqa: ANN201
        """Join and count."""
        self.joins += 1
        return super().training_set(*arguments, **options)  # type: ignore[arg-type]


def trained(folder: Path | None, kill_at: str, to: Path | None) -> tuple[dict[str, bytes], int]:
    """Train beside a champion; die at the beginning of a step. Return the files and the joins."""
    from training.train import train_version

    store, labels = CountingStore(), profile_labels()
    first = profile_recipe(Learner(kind="logistic", scaling="standard"))
    champion = train_version(first, store, labels).bundle(author="dana", created_unix_ms=1)
    joins = store.joins

    def progress(step: str) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    recipe = profile_recipe(Learner(kind="boosting", parameters={"max_iter": 20}))
    version = train_version(
        recipe,
        store,
        labels,
        champion=champion,
        champion_now=judge_champion(recipe, store, labels, champion),
        steps=NO_STEPS if folder is None else StepCache(folder),
        progress=progress,
    )
    if to is not None:
        to.write_bytes(b"".join(version.files[name] for name in sorted(version.files)))
    return version.files, store.joins - joins


@pytest.fixture(scope="module")
def complete() -> dict[str, bytes]:
    """The files of a training that nobody interrupts, and that keeps nothing."""
    return trained(None, "", None)[0]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=pytest.mark.walk if step in QUICK else pytest.mark.nightly)
        for step in STEPS
    ],
)
def test_killed_trainer_goes_on(step: str, complete: dict[str, bytes], tmp_path: Path) -> None:
    """The next attempt ends with the same five files, and repeats no finished step."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["training.train", "training.learners.fit", __name__])
    trainer = forked.Process(target=trained, args=(tmp_path / "steps", step, tmp_path / "files"))
    trainer.start()
    trainer.join()
    assert trainer.exitcode == -signal.SIGKILL
    assert not (tmp_path / "files").exists()
    kept = sorted(path.name.partition("-")[0] for path in (tmp_path / "steps").glob("*-*"))
    assert kept == FINISHED.get(step, ["fit", "rows"])

    written = {path: path.stat().st_ino for path in (tmp_path / "steps").glob("*-*")}
    files, joins = trained(tmp_path / "steps", "", None)
    assert files == complete
    # The rows, the audited features, and those of the champion.
    assert joins == 3 - ("rows" in kept)
    assert all(path.stat().st_ino == inode for path, inode in written.items())
