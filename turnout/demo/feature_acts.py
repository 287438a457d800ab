"""The first act: the features of all customers, bit for bit equal offline and online."""

import asyncio
from pathlib import Path

import numpy as np

from features.contract import ModelContract, ViewUse
from features.materialise import materialise
from features.offline import OfflineStore, Spine, TrainingSet
from features.online.store_client import store_client
from features.online.store_marker import claim_store, system_id
from features.online.store_users import READER, WRITER, url_for_user
from features.sources import telco
from features.sources.public_tables import ENTITY, subscriber_ids
from features.views import View
from turnout.cli.online_rows import read_online_rows
from turnout.demo.checklist import Step, require
from turnout.demo.context import AUTHOR, DemoContext

SAMPLE_ROWS = 1_000
"""Subscribers whose online row is compared with the offline one."""

VIEW: View = telco.churn_profile
ALL_FEATURES = ModelContract(
    entities=VIEW.entities,
    views=(ViewUse(view=VIEW, features=tuple(feature.name for feature in VIEW.features)),),
)
"""A contract with every feature of the view, so that the comparison covers all of them."""


async def features(context: DemoContext, step: Step) -> None:
    """Build the source, ingest it, materialise it, and compare a sample of rows bit for bit."""
    source = context.plan.folder / "telco.parquet"
    context.now_ms = context.clock_ms()
    await asyncio.to_thread(_fill_offline, context, step, source)
    async with context.registry_client(AUTHOR) as client:
        key = (await client.serving_keys()).version_public_key
    await asyncio.to_thread(_fill_online, context, step, system_id(key))
    ids = _sample_ids(context)
    step.note, step.progress = f"comparing {len(ids):,} rows bit for bit", 0.97
    system = context.system
    url = url_for_user(system.store, READER, system.store_passwords)
    online = await read_online_rows(url, VIEW, ids, context.now_ms)
    offline = await asyncio.to_thread(
        _read_as_of, OfflineStore(context.plan.offline_folder), ids, context.now_ms
    )
    require(online.broken == 0, f"{online.broken} online rows carry a wrong hash or id")
    differ = (online.values.view(np.uint32) != offline.values.view(np.uint32)).any(axis=1)
    require(not differ.any(), f"{int(differ.sum())} of {len(ids)} rows differ online from offline")
    require(bool((online.flags == offline.flags).all()), "row flags differ online from offline")
    step.note = (
        f"{context.subscribers:,} subscribers x {len(VIEW.features)} features, cloned from "
        f"{telco.REAL_ROWS:,} real rows; {len(ids):,} sampled rows bit-equal offline and online"
    )


def _fill_offline(context: DemoContext, step: Step, source: Path) -> None:
    step.note, step.progress = "cloning real rows into a Parquet file", 0.02
    telco.build_telco_source(source, now_ms=context.now_ms, subscribers=context.subscribers)
    step.note, step.progress = "ingesting the file into the offline store", 0.15
    ingested = OfflineStore(context.plan.offline_folder).ingest(
        VIEW, source, created_ms=context.now_ms
    )
    context.screen.add_line(f"offline: {ingested.rows:,} rows of {VIEW.name} in Parquet")


def _fill_online(context: DemoContext, step: Step, system: str) -> None:
    def show_progress(done: int, rows: int) -> None:
        step.note = f"materialising: {done:,} of {rows:,} rows online"
        step.progress = 0.35 + 0.6 * done / max(rows, 1)

    with store_client(context.system.store, WRITER, context.system.store_passwords) as client:
        claim_store(client, system)
        written = materialise(
            OfflineStore(context.plan.offline_folder), VIEW, client, progress=show_progress
        )
    context.screen.add_line(f"online: {written.written:,} rows in the store")


def _sample_ids(context: DemoContext) -> list[str]:
    rng = np.random.default_rng(context.now_ms)
    count = min(SAMPLE_ROWS, context.subscribers)
    drawn = rng.choice(context.subscribers, size=count, replace=False)
    return [subscriber_ids(1, first)[0] for first in sorted(drawn.tolist())]


def _read_as_of(store: OfflineStore, ids: list[str], now_ms: int) -> TrainingSet:
    spine = Spine(ids={ENTITY: ids}, as_of_ms=np.full(len(ids), now_ms, dtype=np.int64))
    return store.training_set(ALL_FEATURES, spine)
