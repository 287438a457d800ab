"""The first act: the features of all customers, bit for bit equal offline and online."""

import asyncio

import numpy as np

from features.contract import ModelContract, ViewUse
from features.ingest.load import ingest
from features.materialise import materialise
from features.offline import OfflineStore, Spine, TrainingSet
from features.online.store_client import store_client
from features.online.store_marker import claim_store, system_id
from features.online.store_users import READER, WRITER, url_for_user
from features.views import View
from project.definitions import ProjectDefinitions
from project.plan.fleet import read_fleet
from project.plan.plan import make_plan
from registry.client import RegistryClient
from turnout.cli.online_rows import read_online_rows
from turnout.demo.checklist import Step, require
from turnout.demo.context import AUTHOR, DemoContext
from turnout.demo.example import REAL_ROWS, load_example, make_tables, subscriber_id

SAMPLE_ROWS = 1_000
"""Subscribers whose online row is compared with the offline one."""

VIEW = "churn_profile"


async def features(context: DemoContext, step: Step) -> None:
    """Build the source, ingest it, materialise it, and compare a sample of rows bit for bit."""
    context.now_ms = context.clock_ms()
    step.note, step.progress = "cloning real rows into a Parquet file", 0.02
    context.definitions = definitions = await _load_and_make_tables(context)
    # Fill both stores.
    view = definitions.view(VIEW)
    await asyncio.to_thread(_fill_offline, context, step, view)
    async with context.registry_client(AUTHOR) as client:
        await _apply_project(context, client)
        key = (await client.serving_keys()).version_public_key
    await asyncio.to_thread(_fill_online, context, step, view, system_id(key))
    # Read a sample from both, and compare.
    ids = _sample_ids(context)
    step.note, step.progress = f"comparing {len(ids):,} rows bit for bit", 0.97
    system = context.system
    url = url_for_user(system.store, READER, system.store_passwords)
    online = await read_online_rows(url, view, ids, context.now_ms)
    offline = await asyncio.to_thread(
        _read_as_of, OfflineStore(context.plan.offline_folder), view, ids, context.now_ms
    )
    require(online.broken == 0, f"{online.broken} online rows carry a wrong hash or id")
    differ = (online.values.view(np.uint32) != offline.values.view(np.uint32)).any(axis=1)
    require(not differ.any(), f"{int(differ.sum())} of {len(ids)} rows differ online from offline")
    require(bool((online.flags == offline.flags).all()), "row flags differ online from offline")
    step.note = (
        f"{context.subscribers:,} subscribers x {len(view.features)} features, cloned from "
        f"{REAL_ROWS:,} real rows; {len(ids):,} sampled rows bit-equal offline and online"
    )


async def _apply_project(context: DemoContext, client: RegistryClient) -> None:
    """Apply the example's definitions, so that monitoring knows what its models promise."""
    assert context.definitions is not None
    plan = make_plan(
        "dev",
        None,
        0,
        context.definitions,
        await read_fleet(client),
        root=context.plan.folder,
        offline=context.plan.offline_folder,
    )
    await client.apply_project(
        context.definitions.name,
        expected_revision=plan.expected_revision,
        plan_digest=plan.digest,
        definitions=context.definitions.json,
        effects=plan.effect_texts(),
        commit="",
        dirty=False,
        reason="the demo",
    )
    context.screen.add_line(
        f"project {context.definitions.name} applied: {len(plan.changes)} definitions"
    )


async def _load_and_make_tables(context: DemoContext) -> ProjectDefinitions:
    """Load the example's files in one process, while another one makes its tables."""
    folder, subscribers = context.plan.folder, context.subscribers
    definitions, _ = await asyncio.gather(
        load_example(),
        asyncio.to_thread(make_tables, folder, subscribers=subscribers, now_ms=context.now_ms),
    )
    return definitions


def _fill_offline(context: DemoContext, step: Step, view: View) -> None:
    step.note, step.progress = "ingesting the file into the offline store", 0.15
    store = OfflineStore(context.plan.offline_folder)
    ingested = ingest(view, store, root=context.plan.folder, now_ms=context.now_ms)
    context.screen.add_line(f"offline: {ingested.rows:,} rows of {view.name} in Parquet")


def _fill_online(context: DemoContext, step: Step, view: View, system: str) -> None:
    def show_progress(done: int, rows: int) -> None:
        step.note = f"materialising: {done:,} of {rows:,} rows online"
        step.progress = 0.35 + 0.6 * done / max(rows, 1)

    with store_client(context.system.store, WRITER, context.system.store_passwords) as client:
        claim_store(client, system)
        written = materialise(
            OfflineStore(context.plan.offline_folder), view, client, progress=show_progress
        )
    context.screen.add_line(f"online: {written.written:,} rows in the store")


def _sample_ids(context: DemoContext) -> list[str]:
    rng = np.random.default_rng(context.now_ms)
    count = min(SAMPLE_ROWS, context.subscribers)
    drawn = rng.choice(context.subscribers, size=count, replace=False)
    return [subscriber_id(number) for number in sorted(drawn.tolist())]


def _read_as_of(store: OfflineStore, view: View, ids: list[str], now_ms: int) -> TrainingSet:
    """Return every feature of the view, so that the comparison covers all of them."""
    names = tuple(feature.name for feature in view.features)
    contract = ModelContract(entities=view.entities, views=(ViewUse(view=view, features=names),))
    (entity,) = view.entities
    spine = Spine(ids={entity: ids}, as_of_ms=np.full(len(ids), now_ms, dtype=np.int64))
    return store.training_set(contract, spine)
