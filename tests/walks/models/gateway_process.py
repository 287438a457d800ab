"""`python -m tests.walks.models.gateway_process [INGRESS]` runs a gateway in its own process.

It prints its port. For each line on stdin it prints {"rows_inside", "tasks", "faults"} as JSON.
"""

import asyncio
import json
import sys

import uvloop

from registry.types import Deployment
from tests.gateway import gateway_fixture as fixture_module
from tests.gateway.gateway_fixture import SALT, gateway_fixture
from tests.tiny_models import tiny_files

ONE_VERSION = Deployment(
    model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
)


async def serve_gateway() -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    async with gateway_fixture({"1": tiny_files()}, ONE_VERSION) as gateway:
        print(gateway.port, flush=True)  # noqa: T201
        while await requests.readline():
            state = {
                "rows_inside": gateway.ingress_server.rows_inside,
                "tasks": len(asyncio.all_tasks()),
                "faults": gateway.faults,
            }
            print(json.dumps(state), flush=True)  # noqa: T201


if __name__ == "__main__":
    fixture_module.DEFAULT_INGRESS = (
        sys.argv[1] if len(sys.argv) > 1 else fixture_module.DEFAULT_INGRESS
    )
    uvloop.run(serve_gateway())
