"""`python -m tests.walks.models.gateway_process [DOOR]`: a gateway in a process of its own.

Says its port; then, for each line on stdin, {"rows_inside", "tasks", "faults"} as JSON.
"""

import asyncio
import json
import sys

import uvloop

from registry.types import Deployment
from tests.gateway import gateway_fixture as houses
from tests.gateway.gateway_fixture import SALT, gateway_fixture
from tests.tiny_models import tiny_files

ONE_VERSION = Deployment(
    model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
)


async def serve_gateway() -> None:
    """Until stdin ends."""
    loop = asyncio.get_running_loop()
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    async with gateway_fixture({"1": tiny_files()}, ONE_VERSION) as served:
        print(served.port, flush=True)  # noqa: T201
        while await asked.readline():
            state = {
                "rows_inside": served.ingress_server.rows_inside,
                "tasks": len(asyncio.all_tasks()),
                "faults": served.faults,
            }
            print(json.dumps(state), flush=True)  # noqa: T201


if __name__ == "__main__":
    houses.DEFAULT_INGRESS = sys.argv[1] if len(sys.argv) > 1 else houses.DEFAULT_INGRESS
    uvloop.run(serve_gateway())
