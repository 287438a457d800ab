"""Customers of the tiny model, in a process of their own: python -m tests.walks.drill_callers.

Each has inputs of his own, always the same. SIGTERM ends it; one line of JSON says what came of
every call.
"""

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from turnout_client import PredictClient, PredictError

CUSTOMERS = 100_000
TIMEOUT_S = 2.0


@dataclass
class CallerTotals:
    """What the traffic said at its end."""

    totals: dict[str, Any] = field(default_factory=dict)


@contextmanager
def drill_callers(gateway: str, model: str, rate: float) -> Iterator[CallerTotals]:
    """Let customers call while the block lasts; `final` is filled in at its end."""
    line = [sys.executable, "-m", "tests.walks.drill_callers"]
    line += ["--gateway", gateway, "--model", model, "--rate", str(rate)]
    told = CallerTotals()
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield told
        finally:
            program.send_signal(signal.SIGTERM)
            out, _ = program.communicate(timeout=20)
            told.totals.update(json.loads(out))


async def run_callers(options: argparse.Namespace) -> dict[str, Any]:
    """Call at Poisson instants until SIGTERM, whatever became of earlier calls."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    chance, codes, roles = random.Random(1), Counter[str](), Counter[str]()
    calls: set[asyncio.Task[None]] = set()
    async with PredictClient(options.gateway) as client:

        async def call(customer: int) -> None:
            inputs = [random.Random(customer * 3 + n).random() for n in range(3)]
            try:
                got = await client.predict(
                    options.model, keys=f"S{customer}", inputs=[inputs], timeout_s=TIMEOUT_S
                )
            except PredictError as error:
                codes[error.code.name] += 1
            else:
                roles[got.role] += 1

        due = loop.time()
        while not over.is_set():
            due += chance.expovariate(options.rate)
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(call(chance.randrange(CUSTOMERS)))
            calls.add(task)
            task.add_done_callback(calls.discard)
        await asyncio.gather(*calls)
    answered = sum(roles.values())
    return {"answered": answered, "failed": sum(codes.values()), "codes": codes, "roles": roles}


def main() -> None:
    """Parse the line, play, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rate", type=float, required=True)
    sys.stdout.write(json.dumps(asyncio.run(run_callers(parser.parse_args()))) + "\n")


if __name__ == "__main__":
    main()
