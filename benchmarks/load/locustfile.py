"""A Locust load test of a running gateway, with response times by model, version and role.

    turnout up &                                    # or: make run
    locust -f benchmarks/load/locustfile.py --host 127.0.0.1:8500 CrmUser
    locust -f benchmarks/load/locustfile.py --host 127.0.0.1:8500 --headless -u 200 -r 50 -t 60s

Without class names all three kinds of user run, and most of them are CRM users. The report has a
line for each model, version and role, for example `churn v2 production` and `churn v3 canary`.
Calls are never retried: a load test must see what a caller without retries sees.
docs/performance.md says more.
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
    """Add the options that differ from one system to another."""
    group = parser.add_argument_group("turnout")
    group.add_argument("--model", default="churn", help="for CRM and campaigns")
    group.add_argument(
        "--offers-model", default="nba", help="for offers; --model where it is not served"
    )
    group.add_argument("--entities", type=int, default=200_000, help="customers S0000000, ...")
    group.add_argument("--deadline-ms", type=int, default=1_000)
    group.add_argument("--channels", type=int, default=4, help="connections of each Locust process")


class GatewayConnections:
    """The connections that all users of one Locust process share, and the models' descriptions."""

    def __init__(self, environment: Environment) -> None:
        options: Any = environment.parsed_options
        target = str(environment.host or "").removeprefix("http://").removeprefix("grpc://")
        self._report = environment.events.request
        self._deadline_s = options.deadline_ms / 1e3
        # A connection stays with one worker. Without pools of their own, channels would share one.
        channel_options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        self._channels = [
            grpc.insecure_channel(target, channel_options) for _ in range(options.channels)
        ]
        stubs: list[Any] = [PredictorStub(channel) for channel in self._channels]  # type: ignore[no-untyped-call]
        self._stubs = itertools.cycle(stubs)
        self._models: dict[str, ModelDescription | None] = {}

    def describe(self, model: str) -> ModelDescription | None:
        """Return the description of *model*; None when it is not served."""
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
        """Call once, and report the call by model, version and role; None when it failed."""
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
        """Close the connections."""
        for channel in self._channels:
            channel.close()


GATEWAYS: dict[int, GatewayConnections] = {}
"""id of Locust's environment -> the connections that its users share."""


@events.test_stop.add_listener
def close_gateway(environment: Environment, **_: Any) -> None:  # noqa: ANN401  Locust's
    """Close the connections that the users of this run shared."""
    gateway = GATEWAYS.pop(id(environment), None)
    if gateway is not None:
        gateway.close()


class ServiceUser(User):
    """The base of all users: it draws customers, and makes rows as a model needs them."""

    abstract = True

    def on_start(self) -> None:
        """Take the process's shared connections and the options."""
        options: Any = self.environment.parsed_options
        self.gateway = GATEWAYS.setdefault(
            id(self.environment), GatewayConnections(self.environment)
        )
        self.model: str = options.model
        self.offers_model: str = options.offers_model
        self.entities: int = options.entities

    def context(self) -> dict[str, Any]:
        """Return the kind of user, for listeners of Locust's events."""
        return {"scenario": type(self).__name__}

    def customer(self) -> str:
        """Draw a customer id at random."""
        return f"S{random.randrange(self.entities):07d}"

    def rows(self, description: ModelDescription, customers: list[str]) -> list[Row]:
        """Return a row for each customer; a second entity is O001, O002, ...; inputs are drawn."""
        return [
            Row(
                keys=[
                    customer if position == 0 else f"{entity[:1].upper()}{number % OFFERS + 1:03d}"
                    for position, entity in enumerate(description.entities)
                ],
                inputs=[random.gauss(0.0, 1.0) for _ in description.inputs],
            )
            for number, customer in enumerate(customers)
        ]

    def predict(self, model: str, customers: list[str]) -> None:
        """Call *model* once, with one row for each customer."""
        description = self.gateway.describe(model)
        if description is None:
            raise SystemExit(f"model {model!r} is not served at {self.environment.host}")
        request = PredictRequest(model=model, rows=self.rows(description, customers))
        self.gateway.predict(request, self.context())


class CrmUser(ServiceUser):
    """An agent who opens customers' pages: one key, one row, .1 to 1 s between calls."""

    weight = 10
    wait_time = between(0.1, 1.0)

    @task
    def open_page(self) -> None:
        """Predict for one customer."""
        self.predict(self.model, [self.customer()])


class NbaUser(ServiceUser):
    """A page that ranks offers: one customer and 20 offers a call, or 20 customers of --model."""

    weight = 3
    wait_time = between(0.1, 1.0)

    @task
    def rank_offers(self) -> None:
        """Predict for all offers of one customer."""
        if self.gateway.describe(self.offers_model) is not None:
            self.predict(self.offers_model, [self.customer()] * OFFERS)
        else:
            self.predict(self.model, [self.customer() for _ in range(OFFERS)])


class CampaignUser(ServiceUser):
    """A campaign that selects its audience: 50 calls of 64 customers back to back, then a pause."""

    weight = 1
    wait_time = constant_throughput(0.1)

    @task
    def select_audience(self) -> None:
        """Predict for 3,200 customers as fast as the gateway answers."""
        for _ in range(CAMPAIGN_CALLS):
            self.predict(self.model, [self.customer() for _ in range(CAMPAIGN_ROWS)])
