"""The acts about versions: train two, spoil four, register them, and let somebody else approve."""

import asyncio
from pathlib import Path

from features.offline import OfflineStore
from registry.client import RegistryClient
from registry.types import GateError
from training.artifacts import card
from training.drills import bad_versions
from training.drills.bad_versions import Drill
from training.recipes import churn
from training.train import TrainedVersion, train
from turnout.cli.rollout_client import RolloutClient
from turnout.demo.checklist import Step, hold
from turnout.demo.context import APPROVER, AUTHOR, MODEL, Scene
from turnout.views.cards import INITIAL, card_of, shift_digest

COLUMN = "churn_profile:tenure"
"""By its values the bad versions choose whom to be bad to."""
FAULTY_SHARE = 0.05
NAN_SHARE = 0.05
SLOW_MS = 80.0
CRASHING_SHARE = 0.3
"""So that nobody gets through the shadow stage by luck."""

BAD = {"faulty": "demo-direct", "nan": "demo-direct", "slow": "demo-gentle", "crashing": "demo"}
"""Each bad version, and the policy it is rolled out under: all but the last among customers; 80 ms
of CPU a call, on a tenth of them, would be all that two cores have."""
POLICIES = {"champion": INITIAL, "candidate": "demo", **BAD}
"""What each version is approved under."""


async def training(scene: Scene, step: Step) -> None:
    """Train champion and candidate; make four bad versions of the candidate."""
    champion, candidate = await asyncio.to_thread(_train, scene, step)
    step.note = "drills: the candidate, made to fault, to answer NaN, to be slow, to crash"
    spoiled = await asyncio.to_thread(_spoil, candidate)
    scene.files = {
        # Sealed as it was for training: the candidate's shift names the champion by its id.
        "champion": champion.sealed(author=AUTHOR, created_unix_ms=scene.now_ms),
        "candidate": candidate.files,
        **{name: drill.files for name, drill in spoiled.items()},
    }
    before, after, gain = champion.metrics["auc"], candidate.metrics["auc"], candidate.gain
    assert before.value is not None
    assert after.value is not None
    assert gain is not None
    scene.measured["auc"] = {
        "champion": round(before.value, 4),
        "candidate": round(after.value, 4),
    }
    step.note = (
        f"held-out AUC {before.value:.3f} -> {after.value:.3f}, gain {gain.value:+.3f} "
        f"[{gain.low:+.3f}, {gain.high:+.3f}]; drills: "
        f"faulting on {spoiled['faulty'].share:.1%} of rows, NaN on {spoiled['nan'].share:.1%}, "
        f"{SLOW_MS:g} ms slower, crashing on {spoiled['crashing'].share:.1%}"
    )


def _spoil(good: TrainedVersion) -> dict[str, Drill]:
    """Return the bad versions by the names of BAD."""
    files, rows = good.files, good.rows
    return {
        "faulty": bad_versions.faulting(files, rows, column=COLUMN, share=FAULTY_SHARE),
        "nan": bad_versions.nan_scores(files, rows, column=COLUMN, share=NAN_SHARE),
        "slow": bad_versions.slow(files, SLOW_MS),
        "crashing": bad_versions.crashing(files, rows, column=COLUMN, share=CRASHING_SHARE),
    }


def _train(scene: Scene, step: Step) -> tuple[TrainedVersion, TrainedVersion]:
    labels = churn.labels(now_ms=scene.now_ms)
    commit = card.commit_of(Path(__file__).parent)

    def told(setting: str) -> None:
        step.note = setting

    champion = train(
        churn.recipe("champion"),
        OfflineStore(scene.plan.offline),
        labels,
        commit=commit,
        progress=lambda now: told(f"champion: {now}"),
    )
    step.done = 0.4
    candidate = train(
        churn.recipe("candidate"),
        OfflineStore(scene.plan.offline),
        labels,
        champion=champion.bundle(author=AUTHOR, created_unix_ms=scene.now_ms),
        commit=commit,
        progress=lambda now: told(f"candidate: {now}"),
    )
    step.done = 0.9
    return champion, candidate


async def four_eyes(scene: Scene, step: Step) -> None:
    """Dana registers every version and may not approve her own; Gabriel may."""
    async with RegistryClient(scene.up.registry, AUTHOR) as author:
        for name, files in scene.files.items():
            step.note = f"{AUTHOR} registers the {name}"
            scene.versions[name] = (await author.register(MODEL, files)).label
        refused = await _refused(author, scene.versions["champion"])
    hold(bool(refused), f"{AUTHOR} could approve her own version")
    scene.screen.say(f"refused, as it must be: {refused}")
    async with RolloutClient(scene.up.registry, APPROVER) as client:
        policies = await client.policies()
    async with RegistryClient(scene.up.registry, APPROVER) as approver:
        for name, policy in POLICIES.items():
            step.note = f"{APPROVER} approves the {name} under {policy}"
            version = await approver.get_version(MODEL, scene.versions[name])
            await approver.approve(
                MODEL,
                version.label,
                policy,
                policies[policy].digest if policy in policies else "",
                shift_digest(card_of(version)),
                f"its card was read; fine under {policy}",
            )
    step.note = (
        f"versions {', '.join(scene.versions.values())} registered by {AUTHOR}, approved by "
        f"{APPROVER}; {AUTHOR} approving her own was refused"
    )


async def _refused(author: RegistryClient, version: str) -> str:
    """Return the words with which the author's own approval was refused; empty: it was not."""
    try:
        await author.approve(MODEL, version, INITIAL, "", "", "my own work is surely fine")
    except GateError as error:
        return str(error)
    return ""
