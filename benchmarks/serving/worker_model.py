"""What the workers of one host share, and what another worker costs, by arithmetic.

    python -m benchmarks.serving.workers        # measures the figures, then prints this model

Workers share no memory and no lock. They share the port, by one listening socket each; the online
store, by one connection each; the folder, in which each has its own journal segments; and the
registry and the controllers, by one stream each. So the cost of a worker is what it has for itself,
and four effects bound what the next one brings: connections fall on workers by chance, the same
calls spread over more workers make smaller batches, one store has one thread, and every worker
reads the outcome reports that the others have journalled, to know a report that is repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WORKERS = (1, 2, 4, 8, 16)
CLIENT_CONNECTIONS = (16, 64, 256, 1_024)
CALLS_OPEN = (16, 128, 1_024)
DRAWS = 20_000
SYNCS_A_SECOND = 20
"""At most, of one journal: records are on disk 50 ms after they were written."""
HEARTBEATS_A_SECOND = 10
REPORTS_A_SECOND = 1_000
"""Outcome reports with an idempotency key that come to a host."""


@dataclass(frozen=True, kw_only=True)
class WorkerFigures:
    """What was measured of one worker on this machine."""

    private_mb: float
    """Memory that is the worker's own."""
    shared_mb: float
    """Memory of the worker that all workers have together, mostly program files."""
    supervisor_mb: float
    shadow_mb: float
    """Memory of one process of a shadow."""
    store_connections: float
    """Connections of a serving worker to the store; the spare has one."""
    us_by_open: Mapping[int, float]
    """Calls open in the worker -> its CPU time of a call, us."""
    report_us: float
    """CPU time of a worker to read a report that another worker has journalled, us."""
    store_us_by_open: Mapping[int, float]
    """Calls open in the worker -> CPU time of the store for a call, us."""

    def us_at(self, calls_open: float) -> float:
        """Return the CPU time of a call, us, with so many calls open, from the nearest two."""
        return _between(self.us_by_open, calls_open)

    def store_us_at(self, calls_open: float) -> float:
        """Return the CPU time of the store for a call, us."""
        return _between(self.store_us_by_open, calls_open)


def _between(by_open: Mapping[int, float], calls_open: float) -> float:
    opened = sorted(by_open)
    return float(np.interp(np.log(calls_open), np.log(opened), [by_open[n] for n in opened]))


def busiest_share(connections: int, workers: int, seed: int = 7) -> tuple[float, float]:
    """Return (median, 95th percentile) of the busiest worker's connections over the mean.

    The kernel hashes each connection's addresses and ports to a listening socket, so connections
    fall on workers by chance. All have as many calls. Clients reconnect after connection_age_s_max,
    and then chance draws again.
    """
    drawn = np.random.default_rng(seed).multinomial(
        connections, np.full(workers, 1 / workers), size=DRAWS
    )
    ratios = drawn.max(axis=1) / (connections / workers)
    return float(np.median(ratios)), float(np.quantile(ratios, 0.95))


def host_memory_mb(figures: WorkerFigures, workers: int, shadows: int) -> float:
    """Return the memory of a gateway: workers, one spare, the supervisor, and shadow processes.

    shadows  versions that are shadows; each serving worker has a process for each.
    """
    own = (workers + 1) * figures.private_mb + workers * shadows * figures.shadow_mb
    return own + figures.shared_mb + figures.supervisor_mb


def host_rows(figures: WorkerFigures, sinks: int, shadows: int) -> list[str]:
    """Return a row for each number of workers: what a host of so many has."""
    lines = []
    for workers in WORKERS:
        memory = host_memory_mb(figures, workers, shadows)
        # The spare reads the registry and holds a connection to the store; it sends no windows.
        streams = workers * (1 + sinks) + 1
        connections = workers * figures.store_connections + 1
        # A report comes to one worker and is read by all others.
        reading = (workers - 1) * REPORTS_A_SECOND * figures.report_us / 1e6
        lines.append(
            f"| {workers} | {memory:,.0f} | {connections:,.0f} | {streams} | {workers} | "
            f"{2 * workers} | {workers * SYNCS_A_SECOND} | "
            f"{(workers + 1) * HEARTBEATS_A_SECOND} | {reading:.2f} |"
        )
    return lines


def spread_rows() -> list[str]:
    """Return a row for each number of workers: how unevenly connections fall on them."""
    lines = []
    for workers in WORKERS[1:]:
        shares = [busiest_share(connections, workers) for connections in CLIENT_CONNECTIONS]
        cells = [f"{median:.2f} ({high:.2f})" for median, high in shares]
        lines.append(f"| {workers} | {' | '.join(cells)} |")
    return lines


def load_rows(figures: WorkerFigures) -> list[str]:
    """Return a row for each number of workers: CPU a call, and what one store's thread can feed.

    A worker that is not saturated has its share of the calls open, and pays for smaller batches.
    """
    lines = []
    widest = max(figures.us_by_open)
    for workers in WORKERS:
        calls = [max(1.0, calls_open / workers) for calls_open in CALLS_OPEN]
        costs = [f"{figures.us_at(min(n, widest)):.1f}" for n in calls]
        store = [figures.store_us_at(min(n, widest)) for n in calls]
        # Every worker has a core, of which a saturated one uses all.
        rate = workers * 1e6 / figures.us_at(min(calls[-1], widest))
        busy = rate * store[-1] / 1e6
        lines.append(f"| {workers} | {' | '.join(costs)} | {rate:,.0f} | {busy:.2f} |")
    return lines


def model_text(figures: WorkerFigures, sinks: int = 2, shadows: int = 1) -> str:
    """Return the tables of the model as Markdown."""
    opened = " | ".join(f"us a call, {n:,} calls open on the host" for n in CALLS_OPEN)
    connections = " | ".join(f"{n:,} connections" for n in CLIENT_CONNECTIONS)
    tables: Sequence[str] = (
        f"One host, {sinks} window sinks, {shadows} shadow version(s); a spare beside the workers:",
        "",
        "| workers | memory MB | connections to the store | streams to control | listening sockets "
        "| journal files open | syncs/s of a journal, at most | heartbeats/s "
        f"| cores that read {REPORTS_A_SECOND:,} reports/s of others |",
        "|---|---|---|---|---|---|---|---|---|",
        *host_rows(figures, sinks, shadows),
        "",
        "The busiest worker's connections over the mean, median (95th percentile) by chance:",
        "",
        f"| workers | {connections} |",
        "|---" * (1 + len(CLIENT_CONNECTIONS)) + "|",
        *spread_rows(),
        "",
        f"By key, a core for each worker. The last two columns are with {CALLS_OPEN[-1]:,} calls "
        "open and every worker saturated: calls/s, and cores that the store's thread would need.",
        "",
        f"| workers | {opened} | calls/s | store, cores |",
        "|---" * (3 + len(CALLS_OPEN)) + "|",
        *load_rows(figures),
    )
    return "\n".join(tables)
