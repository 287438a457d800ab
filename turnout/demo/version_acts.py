"""The acts about versions: two are trained, four are made bad, and all are approved."""

import asyncio

from features.offline import OfflineStore
from host.git import commit_of
from registry.client import RegistryClient
from registry.types import GateError
from training.drills import bad_versions
from training.drills.bad_versions import BadVersion
from training.label_reader import read_labels
from training.train import TrainedVersion, train_version
from turnout.demo.checklist import Step, require
from turnout.demo.context import APPROVER, AUTHOR, MODEL, DemoContext
from turnout.demo.example import example_folder
from turnout.views.cards import INITIAL, card_of, shift_digest

COLUMN = "churn_profile:tenure"
"""A bad version chooses the rows to be bad on by the values of this column."""
FAULTY_SHARE = 0.05
NAN_SHARE = 0.05
SLOW_MS = 80.0
CRASHING_SHARE = 0.3
"""Large, so that the version cannot pass the shadow stage by luck."""

BAD_VERSION_POLICIES = {
    "faulty": "demo-direct",
    "nan": "demo-direct",
    "slow": "demo-gentle",
    "crashing": "demo",
}
"""The rollout policy of each bad version.

The slow one has a policy with a smaller share: 80 ms of CPU a call, on a tenth of the calls, would
take two whole cores. The crashing one has a policy with a shadow stage.
"""
POLICIES = {"champion": INITIAL, "candidate": "demo", **BAD_VERSION_POLICIES}
"""The policy that each version is approved for."""


async def training(context: DemoContext, step: Step) -> None:
    """Train champion and candidate; make four bad versions from the candidate."""
    champion, candidate = await asyncio.to_thread(_train_versions, context, step)
    step.note = "making bad versions from the candidate"
    drills = await asyncio.to_thread(_make_bad_versions, candidate)
    context.labelled_rows = candidate.rows
    context.files = {
        # The candidate's expected shift names the champion by its id, so the champion is sealed
        # with the same author and time as for training.
        "champion": champion.sealed(author=AUTHOR, created_unix_ms=context.now_ms),
        "candidate": candidate.files,
        **{name: bad.files for name, bad in drills.items()},
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
        f"faulting on {drills['faulty'].share:.1%} of rows, NaN on {drills['nan'].share:.1%}, "
        f"{SLOW_MS:g} ms slower, crashing on {drills['crashing'].share:.1%}"
    )


def _make_bad_versions(good: TrainedVersion) -> dict[str, BadVersion]:
    """Return the bad versions by the names of BAD_VERSION_POLICIES."""
    files, rows = good.files, good.rows
    return {
        "faulty": bad_versions.faulting_version(files, rows, column=COLUMN, share=FAULTY_SHARE),
        "nan": bad_versions.nan_version(files, rows, column=COLUMN, share=NAN_SHARE),
        "slow": bad_versions.slow_version(files, SLOW_MS),
        "crashing": bad_versions.crashing_version(files, rows, column=COLUMN, share=CRASHING_SHARE),
    }


def _train_versions(context: DemoContext, step: Step) -> tuple[TrainedVersion, TrainedVersion]:
    recipes = {name: context.example.recipe(MODEL, name) for name in ("champion", "candidate")}
    declared = recipes["candidate"].labels
    assert declared is not None
    labels = read_labels(declared, root=context.plan.folder)
    commit = commit_of(example_folder())

    def show_progress(text: str) -> None:
        step.note = text

    champion = train_version(
        recipes["champion"],
        OfflineStore(context.plan.offline_folder),
        labels,
        commit=commit,
        progress=lambda now: show_progress(f"champion: {now}"),
    )
    step.progress = 0.4
    candidate = train_version(
        recipes["candidate"],
        OfflineStore(context.plan.offline_folder),
        labels,
        champion=champion.bundle(author=AUTHOR, created_unix_ms=context.now_ms),
        commit=commit,
        progress=lambda now: show_progress(f"candidate: {now}"),
    )
    step.progress = 0.9
    return champion, candidate


async def four_eyes(context: DemoContext, step: Step) -> None:
    """The author registers every version and may not approve one; the approver may."""
    async with context.registry_client(AUTHOR) as author:
        for name, files in context.files.items():
            step.note = f"{AUTHOR} registers the {name}"
            context.versions[name] = (await author.register(MODEL, files)).label
        refusal = await _refusal_message(author, context.versions["champion"])
    require(bool(refusal), f"{AUTHOR} could approve a version of her own")
    context.screen.add_line(f"refused, as it must be: {refusal}")
    async with context.rollout_client(APPROVER) as client:
        policies = await client.policies()
    async with context.registry_client(APPROVER) as approver:
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
        f"{APPROVER}; {AUTHOR}'s own approval was refused"
    )


async def _refusal_message(author: RegistryClient, version: str) -> str:
    """Return the error of an approval by the author; empty when it was accepted."""
    try:
        await author.approve(MODEL, version, INITIAL, "", "", "my own work is surely fine")
    except GateError as error:
        return str(error)
    return ""
