"""Measures the CPU time of one online read, beside a read by redis-py's own client.

    python -m benchmarks.micro.online_read --keys 64 --reads 5000 --in-flight 4

The command starts a store of its own and reads distinct keys. It prints the CPU microseconds a read
(user + system of this process alone, the best of several rounds), the wall microseconds a read, and
how long a read takes when nothing else runs.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import redis
import redis.asyncio
import uvloop

from features.online.reader import OnlineReader
from features.online.store_server import find_or_start

ROUNDS = 5
ENTITIES = 100_000
VALUE = bytes(112)

Read = Callable[[list[bytes]], Awaitable[object]]


async def best_round_us(read: Read, keys: int, reads: int, in_flight: int) -> tuple[float, float]:
    """Return (CPU, wall) microseconds a read, of the round that took the least CPU."""
    keys_of_all = [b"{S%07d}:measured@0123456789abcdef" % number for number in range(ENTITIES)]
    starts = range(0, ENTITIES - keys, keys)
    batches = [keys_of_all[start : start + keys] for start in starts]

    async def read_in_sequence(first: int) -> None:
        for number in range(first, reads, in_flight):
            await read(batches[number % len(batches)])

    rounds = []
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(read_in_sequence(first) for first in range(in_flight)))
        rounds.append((time.process_time() - cpu, time.perf_counter() - wall))
    best_cpu_s, best_wall_s = min(rounds)
    return best_cpu_s / reads * 1e6, best_wall_s / reads * 1e6


async def sequential_us(read: Read, keys: int) -> float:
    """Return the median wall microseconds of a read when no other read is in flight."""
    batch = [b"{S%07d}:measured@0123456789abcdef" % number for number in range(keys)]
    seconds = []
    for _ in range(2_000):
        began = time.perf_counter()
        await read(batch)
        seconds.append(time.perf_counter() - began)
    return median(seconds) * 1e6


async def measure_reads(url: str, arguments: argparse.Namespace) -> None:
    """Measure both clients, and print a line for each."""
    reader = OnlineReader(url)
    await reader.start()
    client = redis.asyncio.Redis.from_url(url)
    clients: dict[str, Read] = {
        "OnlineReader": lambda keys: reader.mget(keys, 1.0),
        "redis-py asyncio": client.mget,
    }
    print(f"MGET of {arguments.keys} keys, {arguments.in_flight} in flight, uvloop:")
    for name, read in clients.items():
        cpu, wall = await best_round_us(read, arguments.keys, arguments.reads, arguments.in_flight)
        alone_us = await sequential_us(read, arguments.keys)
        print(
            f"  {name:18} {cpu:6.1f} us CPU, {wall:6.1f} us wall a read; {alone_us:6.1f} us alone"
        )
    await client.aclose()
    await reader.close()


def main() -> None:
    """Start a store, fill it, measure both clients, and stop the store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=64)
    parser.add_argument("--reads", type=int, default=5_000, help="a round")
    parser.add_argument("--in-flight", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = find_or_start(None, Path(folder))
        try:
            with redis.Redis.from_url(server.url) as client:
                for first in range(0, ENTITIES, 10_000):
                    numbers = range(first, first + 10_000)
                    client.mset({b"{S%07d}:measured@0123456789abcdef" % n: VALUE for n in numbers})
            uvloop.run(measure_reads(server.url, arguments))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
