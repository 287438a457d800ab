"""Messages of methods that score nothing, on both servers."""

import asyncio

import grpc
import pytest

from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, gateway_fixture
from tests.tiny_models import tiny_files

DEPLOYED = Deployment(model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT)


@pytest.mark.walk
@pytest.mark.parametrize("method", ["DescribeModel", "ReportOutcome"])
def test_server_refuses_64_kb_to_a_method_that_scores_nothing(method: str) -> None:
    """Its requests are small, and larger ones would only cost memory and time."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYED) as gateway:
            call = gateway.channel.unary_unary(f"/turnout.v1.Predictor/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(bytes(64 * 1024 + 1))
            assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert raised.value.details() == (
                "the message is 65537 bytes long; at most 65536 are taken "
                "(unscored_message_bytes_max)"
            )

    asyncio.run(walk())
