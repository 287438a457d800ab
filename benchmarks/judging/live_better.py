"""Is a better model promoted, though it says something else? Five retrained ones, live.

    python -m benchmarks.judging.live_better --json live_better.json

`turnout up` serves last year's churn model (a straight line through four facts) on the 7,043 real
customers, whose rows lie in the online store. Five better ones, of other learners and settings,
are trained on all 19 features and certified against it; each is registered, approved with its
expected shift, and rolled out by the controller: canary of 20 %, of 50 %, watch. Then the old model
is put back, for the next. Leaves with 1 when one of them is not promoted.
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

import redis

from benchmarks.judging.live_aa import (
    INGRESSES,
    TwinRollout,
    policies_in,
    retry_while_busy,
    run_rollout,
    running_callers,
)
from features.materialise import materialise
from features.sources import telco
from tests.demo_models import demo_store
from tests.walks.running_system import turnout_up
from training.recipe import Learner
from training.recipes import churn
from training.train import train_version

BETTER_LEARNERS = {
    "100 small trees": churn.recipe("candidate").learner,
    "60 larger trees": Learner(
        kind="boosting", parameters={"max_iter": 60, "learning_rate": 0.08, "max_leaf_nodes": 16}
    ),
    "200 slow trees": Learner(
        kind="boosting", parameters={"max_iter": 200, "learning_rate": 0.03, "max_leaf_nodes": 8}
    ),
    "a forest": Learner(
        kind="forest", parameters={"n_estimators": 100, "min_samples_leaf": 20, "max_depth": 8}
    ),
    "a straight line through 19 facts": Learner(
        kind="logistic", parameters={"max_iter": 500}, scaling="standard"
    ),
}


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=0.4, help="of each stage's 40, 25, 20 s")
    parser.add_argument("--ingress", choices=INGRESSES, default="auto", help="the front door")
    parser.add_argument("--callers", type=int, default=16, help="calls open at once")
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-live-better-") as name:
        for learner, twin in run_better_rollouts(Path(name), asked):
            told[learner] = asdict(twin)
            print(json.dumps({learner: told[learner]}), flush=True)
    back = [learner for learner, one in told.items() if one["stage"] != "DONE"]
    words = f"{len(told)} better models, ingress {asked.ingress}: {len(back)} not promoted"
    print(f"{words} {back or ''}")
    if asked.json is not None:
        asked.json.write_text(json.dumps({"ingress": asked.ingress, **told}, indent=1) + "\n")
    return 1 if back else 0


def run_better_rollouts(
    folder: Path, arguments: argparse.Namespace
) -> Iterator[tuple[str, TwinRollout]]:
    """Yield what becomes of each."""
    policies = policies_in(folder, arguments.scale)
    now_ms = time.time_ns() // 1_000_000
    store, labels = demo_store(folder, churn.MODEL, now_ms=now_ms), churn.labels(now_ms=now_ms)
    champion = train_version(churn.recipe("champion"), store, labels)
    sealed = champion.sealed(author="dana", created_unix_ms=now_ms)
    rival = champion.bundle(author="dana", created_unix_ms=now_ms)
    with turnout_up(
        folder / "state", "--policies", str(policies), "--ingress", arguments.ingress
    ) as whole:
        with redis.Redis.from_url(whole.addresses.store) as client:
            materialise(store, telco.churn_profile, client)
        files = _read_kept_files(folder / "champion", sealed)
        line = ("versions", "register", churn.MODEL, str(files))
        first = whole.turnout(*line, actor="dana")["label"]
        whole.approve(churn.MODEL, first, "initial")
        whole.deploy(churn.MODEL, first)
        with running_callers(
            whole.addresses.gateway, arguments.callers, churn.MODEL, telco.REAL_ROWS
        ):
            for number, (name, learner) in enumerate(BETTER_LEARNERS.items()):
                recipe = replace(churn.recipe("candidate"), learner=learner, seed=11 + number)
                made = train_version(recipe, store, labels, champion=rival)
                files = _read_kept_files(folder / f"better-{number}", made.files)
                twin = run_rollout(whole, churn.MODEL, files, name)
                yield name, twin
                if twin.stage == "DONE":
                    back = ("rollout", "undo", churn.MODEL, "--to", first, "--reason", "the next")
                    retry_while_busy(lambda line=back: whole.turnout(*line))


def _read_kept_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


if __name__ == "__main__":
    sys.exit(main())
