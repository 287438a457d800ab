"""Load on a running gateway, in Locust: who answers how fast, by model, version and role.

    turnout up &                                    # or: make run
    locust -f benchmarks/load/locustfile.py --host 127.0.0.1:8500 CrmUser
    locust -f benchmarks/load/locustfile.py --host 127.0.0.1:8500 --headless -u 200 -r 50 -t 60s

Without class names all three kinds of user run, CRM most of them. A line of the report is
`churn v2 production`; in a canary's hour the two arms stand under each other. Calls are never
retried: a load test must see what a caller without retries would. docs/performance.md says more.
"""

import itertools
import random
import time
from argparse import ArgumentParser
from typing import Any

import grpc
import grpc.experimental.gevent
from locust import User, between, constant_throughput, events, task
from locust.env import Environment

from protos.predict_pb2 import (
    DescribeRequest,
    ModelDescription,
    PredictReply,
    PredictRequest,
    Role,
    Row,
)
from protos.predict_pb2_grpc import PredictorStub

grpc.experimental.gevent.init_gevent()

OFFERS = 20
CAMPAIGN_CALLS = 50
CAMPAIGN_ROWS = 64
DESCRIBE_S_MAX = 5.0


@events.init_command_line_parser.add_listener
def add_arguments(parser: ArgumentParser) -> None:
    """What differs from one system to another."""
    group = parser.add_argument_group("turnout")
    group.add_argument("--model", default="churn", help="for CRM and campaigns")
    group.add_argument("--offers-model", default="nba", help="customers x offers; else --model")
    group.add_argument("--entities", type=int, default=200_000, help="customers S0000000, ...")
    group.add_argument("--deadline-ms", type=int, default=1_000)
    group.add_argument("--channels", type=int, default=4, help="connections a Locust process")


class GatewayConnections:
    """A few connections that all users of one Locust process share, and what the models take."""

    def __init__(self, environment: Environment) -> None:
        asked: Any = environment.parsed_options
        target = str(environment.host or "").removeprefix("http://").removeprefix("grpc://")
        self._report = environment.events.request
        self._deadline_s = asked.deadline_ms / 1e3
        # A connection belongs to one worker, and channels to one target would share one.
        own = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        self._channels = [grpc.insecure_channel(target, own) for _ in range(asked.channels)]
        stubs: list[Any] = [PredictorStub(channel) for channel in self._channels]  # type: ignore[no-untyped-call]
        self._stubs = itertools.cycle(stubs)
        self._models: dict[str, ModelDescription | None] = {}

    def describe(self, model: str) -> ModelDescription | None:
        """Return what *model* takes; None when it is not served."""
        if model not in self._models:
            try:
                self._models[model] = next(self._stubs).DescribeModel(
                    DescribeRequest(model=model), timeout=DESCRIBE_S_MAX, wait_for_ready=True
                )
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:  # type: ignore[attr-defined]
                    raise
                self._models[model] = None
        return self._models[model]

    def predict(self, request: PredictRequest, context: dict[str, Any]) -> PredictReply | None:
        """Call once and report it by model, version and role; None when it failed."""
        began, reply, error = time.perf_counter(), None, None
        name = request.model
        try:
            reply = next(self._stubs).Predict(request, timeout=self._deadline_s)
            name += f" v{reply.version} {Role.Name(reply.role).lower()}"
        except grpc.RpcError as failed:
            error = failed
            name += f" {failed.code().name}"  # type: ignore[attr-defined]
        self._report.fire(
            request_type="Predict",
            name=name,
            response_time=(time.perf_counter() - began) * 1e3,
            response_length=0 if reply is None else reply.ByteSize(),
            exception=error,
            context={**context, "rows": len(request.rows)},
        )
        answered: PredictReply | None = reply
        return answered

    def close(self) -> None:
        """Let the connections go."""
        for channel in self._channels:
            channel.close()


GATEWAYS: dict[int, GatewayConnections] = {}
"""By id of Locust's environment: one for all users, closed when the test stops."""


@events.test_stop.add_listener
def close_gateway(environment: Environment, **_: Any) -> None:  # noqa: ANN401  Locust's
    """Close what the users of this run shared."""
    gateway = GATEWAYS.pop(id(environment), None)
    if gateway is not None:
        gateway.close()


class Caller(User):
    """What every kind of caller has: the gateway, a customer, rows as a model wants them."""

    abstract = True

    def on_start(self) -> None:
        """Share the process's connections."""
        asked: Any = self.environment.parsed_options
        shared = GATEWAYS.setdefault(id(self.environment), GatewayConnections(self.environment))
        self.gateway = shared
        self.model: str = asked.model
        self.offers_model: str = asked.offers_model
        self.entities: int = asked.entities

    def context(self) -> dict[str, Any]:
        """Say for Locust's listeners who called."""
        return {"scenario": type(self).__name__}

    def customer(self) -> str:
        """Draw any customer."""
        return f"S{random.randrange(self.entities):07d}"

    def rows(self, described: ModelDescription, firsts: list[str]) -> list[Row]:
        """Return a row for each first key; further entities are O001, O002, ..., inputs drawn."""
        return [
            Row(
                keys=[
                    first if place == 0 else f"{entity[:1].upper()}{number % OFFERS + 1:03d}"
                    for place, entity in enumerate(described.entities)
                ],
                inputs=[random.gauss(0.0, 1.0) for _ in described.inputs],
            )
            for number, first in enumerate(firsts)
        ]

    def predict(self, model: str, firsts: list[str]) -> None:
        """Call *model* once, one row a first key."""
        described = self.gateway.describe(model)
        if described is None:
            raise SystemExit(f"model {model!r} is not served at {self.environment.host}")
        request = PredictRequest(model=model, rows=self.rows(described, firsts))
        self.gateway.predict(request, self.context())


class CrmUser(Caller):
    """An agent opens a customer's page: one key, one row, a second or so between calls."""

    weight = 10
    wait_time = between(0.1, 1.0)

    @task
    def open_page(self) -> None:
        """Ask for one customer."""
        self.predict(self.model, [self.customer()])


class NbaUser(Caller):
    """A page ranks offers: one customer x 20 offers in a call; else 20 customers of --model."""

    weight = 3
    wait_time = between(0.1, 1.0)

    @task
    def rank_offers(self) -> None:
        """Ask for all offers of one customer."""
        if self.gateway.describe(self.offers_model) is not None:
            self.predict(self.offers_model, [self.customer()] * OFFERS)
        else:
            self.predict(self.model, [self.customer() for _ in range(OFFERS)])


class CampaignUser(Caller):
    """A campaign selects its audience: 50 calls of 64 customers back to back, then a pause."""

    weight = 1
    wait_time = constant_throughput(0.1)

    @task
    def select_audience(self) -> None:
        """Ask for 3,200 customers as fast as they are answered."""
        for _ in range(CAMPAIGN_CALLS):
            self.predict(self.model, [self.customer() for _ in range(CAMPAIGN_ROWS)])
