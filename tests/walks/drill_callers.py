"""`python -m tests.walks.drill_callers`: customers who call the tiny model while a drill runs.

Each customer always sends the same inputs. SIGTERM ends the process, which then prints the counts
of all its calls as one line of JSON.
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
TIMEOUT_S = 20.0
"""A call's deadline. It is long, so that a busy machine shows as latency and not as failures."""


@dataclass
class CallerTotals:
    """The counts that the callers printed at their end."""

    totals: dict[str, Any] = field(default_factory=dict)


@contextmanager
def drill_callers(gateway: str, model: str, rate: float) -> Iterator[CallerTotals]:
    """Let customers call while the block lasts; the totals are filled in at its end."""
    line = [sys.executable, "-m", "tests.walks.drill_callers"]
    line += ["--gateway", gateway, "--model", model, "--rate", str(rate)]
    result = CallerTotals()
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield result
        finally:
            program.send_signal(signal.SIGTERM)
            out, _ = program.communicate(timeout=60)
            result.totals.update(json.loads(out))


async def run_callers(options: argparse.Namespace) -> dict[str, Any]:
    """Call at Poisson instants until SIGTERM, without waiting for earlier calls."""
    loop, stop_requested = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop_requested.set)
    random_source, codes, roles = random.Random(1), Counter[str](), Counter[str]()
    calls: set[asyncio.Task[None]] = set()
    async with PredictClient(options.gateway) as client:

        async def call(customer: int) -> None:
            inputs = [random.Random(customer * 3 + n).random() for n in range(3)]
            try:
                prediction = await client.predict(
                    options.model, keys=f"S{customer}", inputs=[inputs], timeout_s=TIMEOUT_S
                )
            except PredictError as error:
                codes[error.code.name] += 1
            else:
                roles[prediction.role] += 1

        due = loop.time()
        while not stop_requested.is_set():
            due += random_source.expovariate(options.rate)
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(call(random_source.randrange(CUSTOMERS)))
            calls.add(task)
            task.add_done_callback(calls.discard)
        await asyncio.gather(*calls)
    answered = sum(roles.values())
    return {"answered": answered, "failed": sum(codes.values()), "codes": codes, "roles": roles}


def main() -> None:
    """Parse the command line, call, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rate", type=float, required=True)
    sys.stdout.write(json.dumps(asyncio.run(run_callers(parser.parse_args()))) + "\n")


if __name__ == "__main__":
    main()
