"""Measures whether better models are promoted, though their scores differ: five of them, live.

    python -m benchmarks.judging.live_better --json live_better.json

`turnout up` serves last year's churn model, a logistic regression on four features, to 7,043 real
customers whose rows are in the online store. Five better models, of other learners and settings,
are trained on all 19 features and certified against it. Each is registered, approved with its
expected shift, and rolled out by the controller: a canary of 20 %, then of 50 %, then the watch.
Then the old model is deployed again for the next. Exit code 1: one of them was not promoted.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.judging.live_aa import (
    INGRESSES,
    TwinRollout,
    policies_in,
    retry_while_busy,
    run_rollout,
    running_callers,
)
from features.materialise import materialise
from features.online.store_client import store_client
from features.online.store_users import WRITER
from tests.telco import SUBSCRIBERS, labels_of, recipe_of, telco_store, views_of
from tests.walks.running_system import turnout_up
from training.learner import Learner
from training.train import train_version

MODEL = "churn"

OTHER_LEARNERS = {
    "60 larger trees": Learner(
        kind="boosting", parameters={"max_iter": 60, "learning_rate": 0.08, "max_leaf_nodes": 16}
    ),
    "200 slow trees": Learner(
        kind="boosting", parameters={"max_iter": 200, "learning_rate": 0.03, "max_leaf_nodes": 8}
    ),
    "a forest": Learner(
        kind="forest", parameters={"n_estimators": 100, "min_samples_leaf": 20, "max_depth": 8}
    ),
    "a logistic regression on 19 features": Learner(
        kind="logistic", parameters={"max_iter": 500}, scaling="standard"
    ),
}


def main() -> int:
    """Run every rollout, print its result, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=0.4, help="of each stage's 40, 25, 20 s")
    parser.add_argument("--ingress", choices=INGRESSES, default="auto", help="of the gateway")
    parser.add_argument("--callers", type=int, default=16, help="calls open at once")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-live-better-") as name:
        for learner, twin in run_better_rollouts(Path(name), arguments):
            results[learner] = asdict(twin)
            print(json.dumps({learner: results[learner]}), flush=True)
    refused = [learner for learner, result in results.items() if result["stage"] != "DONE"]
    ingress = arguments.ingress
    print(
        f"{len(results)} better models, ingress {ingress}: {len(refused)} not promoted "
        f"{refused or ''}"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"ingress": ingress, **results}, indent=1) + "\n")
    return 1 if refused else 0


def run_better_rollouts(
    folder: Path, arguments: argparse.Namespace
) -> Iterator[tuple[str, TwinRollout]]:
    """Yield each learner's name and the result of its rollout."""
    # Train the champion, and start a system that serves it.
    policies = policies_in(folder, arguments.scale)
    now_ms = time.time_ns() // 1_000_000
    store = telco_store(folder, MODEL, now_ms=now_ms)
    labels = labels_of(MODEL, folder)
    champion = train_version(recipe_of(MODEL, "champion"), store, labels)
    sealed = champion.sealed(author="dana", created_unix_ms=now_ms)
    baseline = champion.bundle(author="dana", created_unix_ms=now_ms)
    with turnout_up(
        folder / "state", "--policies", str(policies), "--ingress", arguments.ingress
    ) as system:
        with store_client(
            system.addresses.store, WRITER, system.addresses.store_passwords
        ) as client:
            for view in views_of(MODEL):
                materialise(store, view, client)
        files = _write_files(folder / "champion", sealed)
        line = ("versions", "register", MODEL, str(files))
        first = system.turnout(*line, actor="dana")["label"]
        system.approve(MODEL, first, "initial")
        system.deploy(MODEL, first)
        with running_callers(system.addresses.gateway, arguments.callers, MODEL, SUBSCRIBERS):
            # Train, register and roll out each better model; then go back to the champion.
            learners = {"100 small trees": recipe_of(MODEL).learner, **OTHER_LEARNERS}
            for number, (name, learner) in enumerate(learners.items()):
                recipe = replace(recipe_of(MODEL), learner=learner, seed=11 + number)
                trained = train_version(recipe, store, labels, champion=baseline)
                files = _write_files(folder / f"better-{number}", trained.files)
                twin = run_rollout(system, MODEL, files, name)
                yield name, twin
                if twin.stage == "DONE":
                    back = ("rollout", "undo", MODEL, "--to", first, "--reason", "the next")
                    retry_while_busy(lambda line=back: system.turnout(*line))


def _write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


if __name__ == "__main__":
    sys.exit(main())
