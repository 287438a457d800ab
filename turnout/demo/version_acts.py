"""The acts about versions: train two, spoil four, register them, and let somebody else approve."""

import asyncio
from pathlib import Path

from features.offline import OfflineStore
from registry.client import RegistryClient
from registry.types import GateError
from training.artifacts import card
from training.drills import bad_versions
from training.drills.bad_versions import BadVersion
from training.recipes import churn
from training.train import TrainedVersion, train_version
from turnout.cli.rollout_client import RolloutClient
from turnout.demo.checklist import Step, require
from turnout.demo.context import APPROVER, AUTHOR, MODEL, DemoContext
from turnout.views.cards import INITIAL, card_of, shift_digest

COLUMN = "churn_profile:tenure"
"""By its values the bad versions choose whom to be bad to."""
FAULTY_SHARE = 0.05
NAN_SHARE = 0.05
SLOW_MS = 80.0
CRASHING_SHARE = 0.3
"""So that nobody gets through the shadow stage by luck."""

BAD_VERSION_POLICIES = {
    "faulty": "demo-direct",
    "nan": "demo-direct",
    "slow": "demo-gentle",
    "crashing": "demo",
}
"""Each bad version, and the policy it is rolled out under: all but the last among customers; 80 ms
of CPU a call, on a tenth of them, would be all that two cores have."""
POLICIES = {"champion": INITIAL, "candidate": "demo", **BAD_VERSION_POLICIES}
"""What each version is approved under."""


async def training(context: DemoContext, step: Step) -> None:
    """Train champion and candidate; make four bad versions of the candidate."""
    champion, candidate = await asyncio.to_thread(_train_versions, context, step)
    step.note = "drills: the candidate, made to fault, to answer NaN, to be slow, to crash"
    spoiled = await asyncio.to_thread(_make_bad_versions, candidate)
    context.files = {
        # Sealed as it was for training: the candidate's shift names the champion by its id.
        "champion": champion.sealed(author=AUTHOR, created_unix_ms=context.now_ms),
        "candidate": candidate.files,
        **{name: drill.files for name, drill in spoiled.items()},
    }
    before, after, gain = champion.metrics["auc"], candidate.metrics["auc"], candidate.gain
    assert before.value is not None
    assert after.value is not None
    assert gain is not None
    context.measured["auc"] = {
        "champion": round(before.value, 4),
        "candidate": round(after.value, 4),
    }
    step.note = (
        f"held-out AUC {before.value:.3f} -> {after.value:.3f}, gain {gain.value:+.3f} "
        f"[{gain.low:+.3f}, {gain.high:+.3f}]; drills: "
        f"faulting on {spoiled['faulty'].share:.1%} of rows, NaN on {spoiled['nan'].share:.1%}, "
        f"{SLOW_MS:g} ms slower, crashing on {spoiled['crashing'].share:.1%}"
    )


def _make_bad_versions(good: TrainedVersion) -> dict[str, BadVersion]:
    """Return the bad versions by the names of BAD."""
    files, rows = good.files, good.rows
    return {
        "faulty": bad_versions.faulting_version(files, rows, column=COLUMN, share=FAULTY_SHARE),
        "nan": bad_versions.nan_version(files, rows, column=COLUMN, share=NAN_SHARE),
        "slow": bad_versions.slow_version(files, SLOW_MS),
        "crashing": bad_versions.crashing_version(files, rows, column=COLUMN, share=CRASHING_SHARE),
    }


def _train_versions(context: DemoContext, step: Step) -> tuple[TrainedVersion, TrainedVersion]:
    labels = churn.labels(now_ms=context.now_ms)
    commit = card.commit_of(Path(__file__).parent)

    def told(setting: str) -> None:
        step.note = setting

    champion = train_version(
        churn.recipe("champion"),
        OfflineStore(context.plan.offline_folder),
        labels,
        commit=commit,
        progress=lambda now: told(f"champion: {now}"),
    )
    step.progress = 0.4
    candidate = train_version(
        churn.recipe("candidate"),
        OfflineStore(context.plan.offline_folder),
        labels,
        champion=champion.bundle(author=AUTHOR, created_unix_ms=context.now_ms),
        commit=commit,
        progress=lambda now: told(f"candidate: {now}"),
    )
    step.progress = 0.9
    return champion, candidate


async def four_eyes(context: DemoContext, step: Step) -> None:
    """Dana registers every version and may not approve her own; Gabriel may."""
    async with RegistryClient(context.system.registry, AUTHOR) as author:
        for name, files in context.files.items():
            step.note = f"{AUTHOR} registers the {name}"
            context.versions[name] = (await author.register(MODEL, files)).label
        refused = await _refusal_message(author, context.versions["champion"])
    require(bool(refused), f"{AUTHOR} could approve her own version")
    context.screen.add_line(f"refused, as it must be: {refused}")
    async with RolloutClient(context.system.registry, APPROVER) as client:
        policies = await client.policies()
    async with RegistryClient(context.system.registry, APPROVER) as approver:
        for name, policy in POLICIES.items():
            step.note = f"{APPROVER} approves the {name} under {policy}"
            version = await approver.get_version(MODEL, context.versions[name])
            await approver.approve(
                MODEL,
                version.label,
                policy,
                policies[policy].digest if policy in policies else "",
                shift_digest(card_of(version)),
                f"its card was read; fine under {policy}",
            )
    step.note = (
        f"versions {', '.join(context.versions.values())} registered by {AUTHOR}, approved by "
        f"{APPROVER}; {AUTHOR} approving her own was refused"
    )


async def _refusal_message(author: RegistryClient, version: str) -> str:
    """Return the words with which the author's own approval was refused; empty: it was not."""
    try:
        await author.approve(MODEL, version, INITIAL, "", "", "my own work is surely fine")
    except GateError as error:
        return str(error)
    return ""
