"""Asks how long a registry with a long history takes to start, and to be audited.

    python -m benchmarks.endurance.audit --entries 1000000

It writes a history of that length beside the tables that it describes: seven tenths are steps of
canaries, the rest are registrations, approvals, statuses and findings. It prints one JSON line for
each measurement, with the seconds that passed and the CPU seconds of this process:

    build        writing the database, without the registry
    first start  a start without a snapshot: every entry is replayed
    start        a start with a snapshot, as every later one; the bar is 3 s
    audit        `RegistryClient.audit` of a registry in another process; the bar is 10 s

On a shared machine the seconds that passed say little; the CPU seconds of both processes do.
"""

import argparse
import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.canonical import canonical_json, sha256_hex
from registry.client import RegistryClient
from registry.history.chain import StoredEntry, entry_digest, head_bytes
from registry.history.replay import ReplayedState, finding_row
from registry.keys import signing_key
from registry.storage.deployments import deployment_json
from registry.storage.store import RegistryStore
from registry.types import Deployment

MODELS = 30
CARD = canonical_json({"metrics": {"auc": 0.8}, "notes": "n" * 2_000}).decode()
AT_MS = 1_790_000_000_000
POLICY = "ab" * 32


class HistoryWriter:
    """Writes entries of made-up models, and at the end the rows that they describe."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.state = ReplayedState()
        self._block: list[StoredEntry] = []
        self._findings: list[tuple[object, ...]] = []
        self._versions = dict.fromkeys(range(MODELS), 0)
        self._deployed = {
            number: Deployment(model=f"model-{number}", holdout_salt=bytes([number]) * 16)
            for number in range(MODELS)
        }

    def write(self, count: int) -> None:
        """Write *count* entries, in turns over the models."""
        for number in range(count):
            kind, model = number // MODELS % 20, number % MODELS
            if kind == 0:
                self._register(model)
            elif kind == 1:
                self._approve(model)
            elif kind < 4:
                self._finding(model)
            elif kind < 6:
                self._status(model, "staging" if kind == 4 else "archived")
            else:
                self._deploy(model)
        self._flush()
        self._write_rows()

    def _record(self, action: str, object_name: str, before: str, after: object) -> None:
        entry = StoredEntry(
            self.state.seq + 1, AT_MS + self.state.seq, "ann", action, object_name, before,
            canonical_json(after).decode(), "it was tried", self.state.digest, b"",
        )  # fmt: skip
        entry = entry._replace(digest=entry_digest(entry))
        self.state.apply(entry)
        self._block.append(entry)
        if len(self._block) == 10_000:
            self._flush()
        if action == "finding":
            row = finding_row(entry)
            names = ("sequence", "model", "version", "kind", "text", "who", "at_unix_ms")
            self._findings.append(tuple(row[name] for name in names))

    def _flush(self) -> None:
        marks = ", ".join("?" * len(StoredEntry._fields))
        self._connection.executemany(f"INSERT INTO history VALUES ({marks})", self._block)
        self._block = []

    def _register(self, model: int) -> None:
        self._versions[model] += 1
        label = self._versions[model]
        salt = {"holdout_salt_sha256": sha256_hex(bytes([model]) * 16)} if label == 1 else {}
        self._record(
            "register", f"model/model-{model}/version/{label}", "{}",
            {
                **salt, "digest": sha256_hex(f"{model}/{label}".encode()), "author": "ann",
                "status": "development", "size_bytes": 9, "created_unix_ms": AT_MS,
                "model_contract": POLICY, "input_contract": POLICY, "outputs": 1,
                "entities": ["subscriber"], "card_sha256": sha256_hex(CARD.encode()),
            },
        )  # fmt: skip

    def _status(self, model: int, status: str) -> None:
        object_name = f"model/model-{model}/version/{self._versions[model]}"
        before = '{"standby":false,"status":"development"}'
        self._record("status", object_name, before, {"status": status, "standby": False})

    def _approve(self, model: int) -> None:
        label = str(self._versions[model])
        approval_id = f"{self.state.seq:016x}"
        self._record(
            "approve", f"model/model-{model}/approval/{approval_id}", "{}",
            {
                "id": approval_id, "model": f"model-{model}", "version": label,
                "version_digest": sha256_hex(f"{model}/{label}".encode()),
                "policy_name": "standard", "policy_digest": POLICY, "accepted_shift": "",
                "approver": "bob", "reason": "read", "at_unix_ms": AT_MS, "rejected": False,
            },
        )  # fmt: skip

    def _finding(self, model: int) -> None:
        sequence = len(self.state.rows["findings"]) + 1
        finding = {
            "model": f"model-{model}", "version": "1", "kind": "hold", "text": "scores moved",
            "who": "ann", "at_unix_ms": AT_MS,
        }  # fmt: skip
        self._record("finding", f"model/model-{model}/finding/{sequence}", "{}", finding)

    def _deploy(self, model: int) -> None:
        before = self._deployed[model]
        label = str(self._versions[model])
        after = Deployment(
            model=before.model, revision=before.revision + 1, production="1", canary=label,
            canary_bp=before.revision % 10_000, holdout_salt=before.holdout_salt, who="ann",
            why="it was tried", at_unix_ns=(AT_MS + self.state.seq) * 1_000_000,
            digests=(("1", sha256_hex(f"{model}/1".encode())),),
        ) if label != "1" else Deployment(
            model=before.model, revision=before.revision + 1, production="1", who="ann",
            holdout_salt=before.holdout_salt, why="it was tried",
            at_unix_ns=(AT_MS + self.state.seq) * 1_000_000,
        )  # fmt: skip
        self._deployed[model] = after
        digest = sha256_hex(_message(after))
        fields = {**deployment_json(after), "policy_digest": POLICY, "message_sha256": digest}
        text = canonical_json(deployment_json(before)).decode()
        self._record("deploy", f"model/{after.model}/deployment", text, fields)

    def _write_rows(self) -> None:
        execute = self._connection.executemany
        execute(
            "INSERT INTO models VALUES (?, ?, ?)",
            [(f"model-{n}", bytes([n]) * 16, labels) for n, labels in self._versions.items()],
        )
        versions = [row for _, row in self.state.rows["versions"].values()]
        names = ("digest", "model", "label", "status", "standby", "was_production", "author",
                 "created_unix_ms", "model_contract", "input_contract", "entities", "outputs",
                 "size_bytes")  # fmt: skip
        execute(
            f"INSERT INTO versions ({', '.join(names)}, card_json) VALUES ({'?, ' * 13}?)",
            [(*(row[name] for name in names), CARD) for row in versions],
        )
        approvals = [row for _, row in self.state.rows["approvals"].values()]
        names = ("place", "id", "model", "version", "version_digest", "policy_name",
                 "policy_digest", "accepted_shift", "approver", "reason", "at_unix_ms",
                 "rejected")  # fmt: skip
        execute(
            f"INSERT INTO approvals ({', '.join(names)}) VALUES ({', '.join('?' * 12)})",
            [tuple(row[name] for name in names) for row in approvals],
        )
        execute(
            "INSERT INTO deployments VALUES (?, ?, ?)",
            [(d.model, d.revision, _message(d)) for d in self._deployed.values() if d.revision],
        )
        execute("INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?)", self._findings)


def _message(deployment: Deployment) -> bytes:
    return deployment.to_proto().SerializeToString(deterministic=True)


def build(folder: Path, entries: int) -> None:
    """Write a registry with *entries* history entries into *folder*."""
    RegistryStore(folder, time.time_ns).close()
    key = signing_key(folder / "keys")
    connection = sqlite3.connect(folder / "registry.sqlite")
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        writer = HistoryWriter(connection)
        writer.write(entries)
        state = writer.state
        signature = key.sign(head_bytes(state.seq, state.digest))
        head = (1, state.seq, state.digest, signature, key.public_key().public_bytes_raw())
        connection.execute("INSERT INTO head VALUES (?, ?, ?, ?, ?)", head)
    connection.close()


@contextmanager
def measured(name: str, **facts: object) -> Iterator[None]:
    """Print the seconds that the block took, and the CPU seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    figures = {
        "measured": name,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
    print(json.dumps({**figures, **facts}), flush=True)


def cpu_seconds_of(pid: int) -> float:
    """Return the CPU seconds that a process has used, as Linux counts them."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


async def audit_over_grpc(folder: Path) -> None:
    """Audit the registry in *folder*, which a process of its own serves."""
    line = ("-m", "registry", "--folder", str(folder), "--listen", "127.0.0.1:0")
    process = await asyncio.create_subprocess_exec(sys.executable, *line, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().split()[-1]
        async with RegistryClient(address, "auditor") as client:
            await client.list_models()
            before = cpu_seconds_of(process.pid)
            with measured("audit"):
                report = await client.audit()
            used = cpu_seconds_of(process.pid) - before
            print(json.dumps({"measured": "the audited process", "cpu_seconds": round(used, 2)}))
        assert report.intact, report
    finally:
        process.terminate()
        await process.wait()


def main() -> None:
    """Build, start twice, audit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    entries = parser.parse_args().entries
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "registry"
        with measured("build", entries=entries):
            build(folder, entries)
        for name in ("first start", "start"):
            with measured(name):
                store = RegistryStore(folder, time.time_ns)
            assert not store.stopped_reason, store.stopped_reason
            store.close()
        asyncio.run(audit_over_grpc(folder))


if __name__ == "__main__":
    main()
