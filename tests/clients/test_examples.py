"""The examples in the client's docstrings run and print what they say."""

import doctest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import turnout_client
from protos import features_pb2_grpc, predict_pb2_grpc
from protos.features_pb2 import PushReply, PushRequest, PushResult
from protos.predict_pb2 import OutcomeReply, OutcomeRequest, PredictReply, PredictRequest, Role
from turnout_client import features_client, predict_client, sync_client

WRITTEN = ("127.0.0.1:8500", "127.0.0.1:7003")
"""The addresses in the examples, which become that of the test's server."""

EXAMPLES = [
    example
    for module in (turnout_client, features_client, predict_client, sync_client)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
]


class ExampleServer(predict_pb2_grpc.PredictorServicer):
    """Scores each row .25 with version "7", as a canary."""

    def Predict(self, request: PredictRequest, _: grpc.ServicerContext) -> PredictReply:  # noqa: N802
        """Answer at once."""
        return PredictReply(
            version="7",
            role=Role.CANARY,
            prediction_id=bytes(64),
            scores=[0.25] * len(request.rows),
            outputs=1,
        )

    def ReportOutcome(self, request: OutcomeRequest, _: grpc.ServicerContext) -> OutcomeReply:  # noqa: N802
        """Accept it if it names the prediction, or an entity and a time."""
        if request.prediction_id:
            assert request.prediction_id == bytes(64)
            return OutcomeReply()
        assert (list(request.keys), request.event_time_ms > 0) == (["S0000042"], True)
        return OutcomeReply(attribution=OutcomeReply.BY_ENTITY_LATER)


class ExampleFeatures(features_pb2_grpc.FeaturesServicer):
    """Takes each row."""

    def Push(self, request: PushRequest, _: grpc.ServicerContext) -> PushReply:  # noqa: N802
        """Answer at once."""
        return PushReply(results=[PushResult(status=PushResult.WRITTEN)] * len(request.rows))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve both services on a free port."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        predict_pb2_grpc.add_PredictorServicer_to_server(ExampleServer(), server)  # type: ignore[no-untyped-call]
        features_pb2_grpc.add_FeaturesServicer_to_server(ExampleFeatures(), server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()


@pytest.mark.walk
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_docstring_example_prints_what_it_says(address: str, example: doctest.DocTest) -> None:
    """Only the address is replaced."""
    for step in example.examples:
        for written in WRITTEN:
            step.source = step.source.replace(written, address)
    printed: list[str] = []
    done = doctest.DocTestRunner().run(example, out=printed.append)
    assert done.attempted > 0
    assert done.failed == 0, "".join(printed)


def test_the_package_and_its_clients_have_an_example() -> None:
    """A class that is renamed or loses its example would pass the test above."""
    assert {example.name for example in EXAMPLES} == {
        "turnout_client",
        "turnout_client.features_client.FeaturesClient",
        "turnout_client.predict_client.PredictClient",
        "turnout_client.predict_client.PredictClient.report_entity_outcome",
        "turnout_client.sync_client.SyncPredictClient",
        "turnout_client.sync_client.SyncPredictClient.report_entity_outcome",
    }
