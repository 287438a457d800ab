"""The first act: 200,000 subscribers, offline and online, bit for bit the same."""

import asyncio
from pathlib import Path

import numpy as np
import redis

from features.contract import ModelContract, ViewUse
from features.materialise import materialise
from features.offline import OfflineStore, Spine, TrainingSet
from features.sources import telco
from features.views import View
from turnout.cli.online_rows import read
from turnout.demo.checklist import Step, hold
from turnout.demo.context import Scene

SAMPLE = 1_000
"""Subscribers whose online row is compared with the offline one."""

VIEW: View = telco.churn_profile
WHOLE = ModelContract(
    entities=VIEW.entities,
    views=(ViewUse(view=VIEW, features=tuple(one.name for one in VIEW.features)),),
)
"""Reads every feature of the view, so that the comparison leaves none out."""


async def features(scene: Scene, step: Step) -> None:
    """Build the source, ingest it, materialise it, and compare a sample bit for bit."""
    source = scene.plan.folder / "telco.parquet"
    scene.now_ms = scene.clock_ms()
    await asyncio.to_thread(_offline, scene, step, source)
    await asyncio.to_thread(_online, scene, step)
    ids = _drawn(scene)
    step.note, step.done = f"comparing {len(ids):,} rows bit for bit", 0.97
    online = await read(scene.up.store, VIEW, ids, scene.now_ms)
    offline = await asyncio.to_thread(_as_of, OfflineStore(scene.plan.offline), ids, scene.now_ms)
    hold(online.broken == 0, f"{online.broken} online rows carry a wrong hash or id")
    differ = (online.values.view(np.uint32) != offline.values.view(np.uint32)).any(axis=1)
    hold(not differ.any(), f"{int(differ.sum())} of {len(ids)} rows differ online from offline")
    hold(bool((online.flags == offline.flags).all()), "row flags differ online from offline")
    step.note = (
        f"{scene.subscribers:,} subscribers x {len(VIEW.features)} features, cloned from "
        f"{telco.REAL_ROWS:,} real rows; {len(ids):,} sampled rows bit-equal offline and online"
    )


def _offline(scene: Scene, step: Step, source: Path) -> None:
    step.note, step.done = "cloning real rows into a source of Parquet", 0.02
    telco.build_source(source, now_ms=scene.now_ms, subscribers=scene.subscribers)
    step.note, step.done = "ingesting it offline, through the view's transform", 0.15
    kept = OfflineStore(scene.plan.offline).ingest(VIEW, source, created_ms=scene.now_ms)
    scene.screen.say(f"offline: {kept.rows:,} rows of {VIEW.name} in Parquet")


def _online(scene: Scene, step: Step) -> None:
    def told(done: int, rows: int) -> None:
        step.note = f"materialising: {done:,} of {rows:,} rows online"
        step.done = 0.35 + 0.6 * done / max(rows, 1)

    with redis.Redis.from_url(scene.up.store) as client:
        written = materialise(OfflineStore(scene.plan.offline), VIEW, client, progress=told)
    scene.screen.say(f"online: {written.written:,} rows in the store")


def _drawn(scene: Scene) -> list[str]:
    rng = np.random.default_rng(scene.now_ms)
    count = min(SAMPLE, scene.subscribers)
    drawn = rng.choice(scene.subscribers, size=count, replace=False)
    return [telco.subscriber_ids(1, first)[0] for first in sorted(drawn.tolist())]


def _as_of(store: OfflineStore, ids: list[str], now_ms: int) -> TrainingSet:
    spine = Spine(ids={telco.ENTITY: ids}, as_of_ms=np.full(len(ids), now_ms, dtype=np.int64))
    return store.training_set(WHOLE, spine)
