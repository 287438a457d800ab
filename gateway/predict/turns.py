"""One pass for many models: what the native server hands over in one turn is answered in one turn.

A batch of one model costs some 200 us, however few calls it has, so thirty models with a few calls
each cost five times what one model with all of the calls costs. Here the calls of all models are
assigned by one native call, read by one MGET, and sent and kept by one native call more.

Only the usual case takes this way: production alone answers, no call pins a version, every call has
a key, and nothing fails. Every other group of calls becomes a batch (gateway.predict.pipeline),
which gives the same answers and the same records (tests/gateway/predict/test_turns.py). A group of
calls that fails on the way here becomes a batch, too, so no model's fault reaches another model.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.contract import TIME_NAMES
from features.errors import OnlineStoreError
from gateway.batch import FeatureRows
from gateway.columns import Calls
from gateway.models.executor import Scorer
from gateway.models.routes import Routes, RouteTable
from gateway.native_library import NativeTurn
from gateway.predict.feature_lookup import NoOnlineStore, OnlineStore, default_rows, read_budget_s
from gateway.predict.prediction_ids import PredictionIdWriter
from gateway.settings import Settings
from gateway.telemetry.native_observations import AnsweredGroup
from gateway.telemetry.recorder import Recorder
from gateway.transport.native.server import NativeServer
from gateway.worker_identity import NO_SLOT
from host.clock import Clock
from protos.predict_pb2 import PRODUCTION, ROLE_UNSPECIFIED
from registry.types import EVIDENCE_DOMAIN, HOLDOUT_DOMAIN

SHARED_BUDGET_MIN = 0.5
"""A group shares the read of a turn if it may wait at least this share of the longest budget. So a
short deadline never makes another model's read give up early by more than that."""


class _Plan(NamedTuple):
    """What the pass knows of a model at one revision."""

    routes: Routes
    native: object | None
    """turnout_ingress.ModelPlan. None: every call of the model goes through a batch."""
    scorer: Scorer
    slot: int
    """The worker's slot, which prediction ids have."""
    width: int
    """W, the number of columns of the matrix."""

    @property
    def usual_for_thread(self) -> bool:
        """Whether the I/O thread may answer: Python asks for the health of a required journal."""
        return not self.routes.limits.journal_required


class TurnMember(NamedTuple):
    """The calls of one model that the pass answers."""

    group: int
    """The index of its group in the turn."""
    routes: Routes
    scorer: Scorer
    width: int
    calls: int
    rows: int
    latest_ns: int
    """The latest deadline of its calls, monotonic."""


@dataclass(slots=True)
class TakenTurn:
    """A turn that was taken from the server."""

    turn: NativeTurn
    groups: list[tuple[str, int]]
    """The model and the number of calls of each group."""
    now_ns: int
    ready: list[TurnMember]
    """Groups of models that read no view; they do not wait for the store."""
    reading: list[TurnMember]
    """Groups that share one read of the store."""
    others: list[int]
    """Groups for which a batch is needed."""
    budget_s: float = 0.0
    """Time for the read that groups share."""


class UnansweredGroup(NamedTuple):
    """A group that was read but not answered, because something failed. It needs a batch."""

    routes: Routes
    calls: Calls
    features: FeatureRows
    read_unix_ns: int


class TurnPath:
    """Answers turns in one pass.

    store      None if the gateway has no online store.
    io_thread  whether the I/O thread answers usual calls by itself.
    """

    def __init__(
        self,
        server: NativeServer,
        route_table: RouteTable,
        store: OnlineStore | None,
        id_writer: PredictionIdWriter,
        recorder: Recorder,
        clock: Clock,
        settings: Settings,
        *,
        io_thread: bool = True,
    ) -> None:
        self._server = server
        self._route_table = route_table
        self._store: OnlineStore = store or NoOnlineStore()
        self._id_writer = id_writer
        self._recorder = recorder
        self._clock = clock
        self._answer_ns_min = settings.deadline_left_us_min * 1_000
        self._plans: dict[str, _Plan] = {}
        self._io_thread = io_thread
        self._numbers = itertools.count(1)
        self._published: dict[int, _Plan] = {}
        """The published plans by number, and earlier ones until their records are collected."""
        self._numbers_now: dict[str, int] = {}
        """The number of each model's published plan."""

    # Calls that the I/O thread answers

    def publish(self) -> None:
        """Publish the plans of all models, now and after each change of routes.

        Call this when serving begins, and after the worker's identity changed. A worker without a
        slot publishes nothing, because its slot is a part of each prediction id.
        """
        if not self._io_thread or self._id_writer.slot == NO_SLOT:
            return
        self._route_table.on_change = self._publish
        self._recorder.collect = self._collect
        self._server.on_records = self._recorder.fold_collected
        self._server.set_id_keys(self._id_writer.keys)
        for routes in self._route_table.all():
            self._publish(routes.model)

    def _publish(self, model: str) -> None:
        """Replace or withdraw the plan by which the I/O thread answers calls of a model."""
        plan = self._plan(model, journal_healthy=True)
        if plan is None or plan.native is None or not plan.usual_for_thread:
            self._numbers_now.pop(model, None)
            self._server.publish_plan(model, None)
            return
        number = next(self._numbers)
        self._published[number], self._numbers_now[model] = plan, number
        self._server.publish_plan(model, (number, plan.native))

    def _collect(self) -> None:
        """Give the recorder what the I/O thread has answered."""
        # Find the plans first, because recording may collect again.
        records = [(self._published[record.plan], record) for record in self._server.take_records()]
        # A plan that was withdrawn answers no call, so its last records are among these.
        now = set(self._numbers_now.values())
        self._published = {n: plan for n, plan in self._published.items() if n in now}
        for plan, record in records:
            self._recorder.record_thread_reads(plan.routes, record)
            self._recorder.record(
                AnsweredGroup(
                    plan.routes,
                    record.unix_ns,
                    record.columns,
                    record.rows,
                    plan.width,
                    record.broken,
                )
            )

    # Turns

    def take(self, rows_max: int) -> TakenTurn | None:
        """Take the waiting calls of all models; `assign` chooses which of them the pass answers."""
        turn = self._server.pop_turn(rows_max)
        if turn is None:
            return None
        groups = turn.groups()
        return TakenTurn(turn, groups, self._clock.now_ns(), [], [], list(range(len(groups))))

    def assign(self, taken: TakenTurn) -> None:
        """Choose the groups that the pass answers, and draw what follows from their keys."""
        healthy = self._recorder.journal_healthy
        plans = [self._plan(model, journal_healthy=healthy) for model, _ in taken.groups]
        natives = [None if plan is None else plan.native for plan in plans]
        assigned = taken.turn.assign(natives, taken.now_ns + self._answer_ns_min)
        # The library tells which groups are the usual case.
        ready, reading, others = list[TurnMember](), list[TurnMember](), list[int]()
        for index, (plan, fits) in enumerate(zip(plans, assigned, strict=True)):
            if plan is None or fits is None:
                others.append(index)
                continue
            calls = taken.groups[index][1]
            member = TurnMember(index, plan.routes, plan.scorer, plan.width, calls, *fits)
            (reading if plan.routes.reads else ready).append(member)
        # A group that may wait much less than the others reads alone.
        budgets_s = self._budgets_s(reading, taken.now_ns)
        least_s = SHARED_BUDGET_MIN * max(budgets_s, default=0.0)
        others += [m.group for m, s in zip(reading, budgets_s, strict=True) if s < least_s]
        reading = [m for m, s in zip(reading, budgets_s, strict=True) if s >= least_s]
        taken.budget_s = min([s for s in budgets_s if s >= least_s], default=0.0)
        taken.ready, taken.reading, taken.others = ready, reading, others

    def _plan(self, model: str, *, journal_healthy: bool) -> _Plan | None:
        """Return the plan of a model; None if a batch has to refuse its calls."""
        routes = self._route_table.get(model)
        if routes is None or (routes.limits.journal_required and not journal_healthy):
            return None
        plan = self._plans.get(model)
        if plan is None or plan.routes is not routes or plan.slot != self._id_writer.slot:
            # Plans of models that are not served any more go, too.
            served = self._route_table.get
            self._plans = {
                name: known for name, known in self._plans.items() if served(name) is known.routes
            }
            plan = self._plans[model] = self._make_plan(routes)
        return plan

    def _make_plan(self, routes: Routes) -> _Plan:
        version, deployment = routes.production.version, routes.deployment
        slot, scorer = self._id_writer.slot, version.executor.scorer
        usual = not routes.compared and all(
            read.native_position is not None for read in routes.reads
        )
        if not usual:
            return _Plan(routes, None, scorer, slot, 0)
        holdout = deployment.holdout_salt + HOLDOUT_DOMAIN, deployment.holdout_bp
        hidden, columns = routes.limits.hide_role, routes.production.columns
        native = self._server.model_plan(
            (routes.shape.entities, len(routes.shape.input_names)),
            deployment.split_salt + EVIDENCE_DOMAIN,
            holdout if deployment.holdout_bp else None,
            [(read.native, read.native_position) for read in routes.reads],
            routes.request_time,
            (routes.limits.feature_ns, routes.limits.features_required),
            version.executor.outputs,
            self._id_writer.body(routes, version, PRODUCTION, at_unix_ms=0),
            routes.score_rule(version),
            hidden,
            ("", ROLE_UNSPECIFIED) if hidden else (version.label, PRODUCTION),
            getattr(scorer, "native_model", None),
            None if columns is None else columns.tolist(),
            getattr(scorer, "native_cell", None),
        )
        width = sum([read.rows.width for read in routes.reads]) + len(routes.shape.input_names)
        width += len(TIME_NAMES) if routes.request_time else 0
        return _Plan(routes, native, scorer, slot, width)

    def calls_of(self, taken: TakenTurn, index: int) -> Calls:
        """Return the calls of a group."""
        return self._server.calls_of(taken.turn, index)

    def answer_ready(self, taken: TakenTurn) -> list[UnansweredGroup]:
        """Answer the groups that read no view. Returns those that need a batch."""
        return self._answer(taken, taken.ready, [], self._clock.unix_ns())

    async def answer_reading(self, taken: TakenTurn) -> list[UnansweredGroup]:
        """Read the rows of the other groups with one MGET, and answer them.

        Returns the groups that need a batch: all of them if the store does not answer.
        """
        members, unix_ns = taken.reading, self._clock.unix_ns()
        keys = taken.turn.store_keys([member.group for member in members])
        try:
            replies = await self._store.mget(keys, taken.budget_s)
        except OnlineStoreError as error:
            return [
                self._unanswered(taken, member, unix_ns, read_failure=error.reason)
                for member in members
            ]
        return self._answer(taken, members, replies, unix_ns)

    def _budgets_s(self, members: Sequence[TurnMember], now_ns: int) -> list[float]:
        """Return how long each group may wait for the read of all of them."""
        rows = sum([member.rows for member in members])
        return [
            read_budget_s(member.routes.limits.feature_ns, rows, member.latest_ns - now_ns)
            for member in members
        ]

    # Scoring and answering

    def _answer(
        self,
        taken: TakenTurn,
        members: Sequence[TurnMember],
        replies: Sequence[bytes | None],
        read_unix_ns: int,
    ) -> list[UnansweredGroup]:
        """Score groups, send their replies together and leave a record of each."""
        turn, recorder, now_ms = taken.turn, self._recorder, read_unix_ns // 1_000_000
        turn.read([member.group for member in members], replies, now_ms)
        # Score native models in one pass, others group by group. A batch takes what has a fault.
        scored, left = list[TurnMember](), list[UnansweredGroup]()
        natively = turn.score_native([member.group for member in members])
        for member, finite in zip(members, natively, strict=True):
            if self._score(turn, member) if finite is None else finite:
                scored.append(member)
            else:
                left.append(self._unanswered(taken, member, read_unix_ns))
        # Send all replies, and leave the records.
        clock, unix_ns = self._clock, self._clock.unix_ns()
        calls = sum([member.calls for member in scored])
        records = self._server.answer_groups(
            turn,
            [member.group for member in scored],
            self._id_writer.keys,
            self._id_writer.reserve(calls),
            (unix_ns, read_unix_ns, clock.now_ns()),
        )
        clean = list[TurnMember]()
        for member, record in zip(scored, records, strict=True):
            routes, rows, broken = member.routes, member.rows, 0
            if turn.flagged(member.group):
                features = _features(turn, member)
                broken = features.broken
                recorder.record_feature_read(routes, features)
            else:
                clean.append(member)
            recorder.record(AnsweredGroup(routes, unix_ns, record, rows, member.width, broken))
        recorder.record_clean_reads(
            [member.rows for member in clean], sum([bool(member.routes.reads) for member in clean])
        )
        return left

    def _score(self, turn: NativeTurn, member: TurnMember) -> bool:
        """Score a group. False: the run failed, or a score is not finite."""
        try:
            matrix = member.routes.production.matrix(_matrix(turn, member))
            return turn.take_scores(member.group, member.scorer.run(matrix))
        except Exception:  # noqa: BLE001  a batch finds out what it is, without the other groups
            return False

    def _unanswered(
        self, taken: TakenTurn, member: TurnMember, read_unix_ns: int, read_failure: str = ""
    ) -> UnansweredGroup:
        """Return a group as a batch needs it.

        read_failure  why the store did not answer; empty if it did.
        """
        calls = self._server.calls_of(taken.turn, member.group)
        if read_failure:
            features = default_rows(member.routes, calls, read_unix_ns // 1_000_000, read_failure)
        else:
            features = _features(taken.turn, member)
        return UnansweredGroup(member.routes, calls, features, read_unix_ns)


def _matrix(turn: NativeTurn, member: TurnMember) -> NDArray[np.float32]:
    return np.frombuffer(turn.matrix(member.group), np.float32).reshape(member.rows, -1)


def _features(turn: NativeTurn, member: TurnMember) -> FeatureRows:
    """Return how a group was read. Its matrix is empty once the group is answered."""
    flags, broken = turn.read_flags(member.group)
    return FeatureRows(_matrix(turn, member), np.frombuffer(flags, np.uint32), broken, "")
