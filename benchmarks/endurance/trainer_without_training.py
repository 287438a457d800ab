"""The child of a runner in a simulated year: it ends its run as the run's key says."""

import argparse
import asyncio
import hashlib
import os
import signal

import numpy as np

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from tests.tiny_models import linear_weights, tiny_files
from turnout.retraining.child import confine_training

MODEL = "churn"


def ending_of(key: str) -> str:
    """Return how the run of a key ends: most keep the champion, and some crash at every attempt."""
    number = hashlib.sha256(key.encode()).digest()[0] % 20
    return {0: "version", 1: "gate", 2: "error", 3: "crash once", 4: "crash"}.get(number, "kept")


def files_of_key(key: str) -> dict[str, bytes]:
    """Return the files of the version that the run of a key makes, the same at each attempt."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:3], "little")
    return tiny_files(MODEL, weights=linear_weights(3) * np.float32(1 + number / 2**24))


async def end_as_key_says(address: str, setting: str, key: str) -> None:
    """Begin the run, and end it."""
    async with RegistryClient(address, "robot", now_ms=lambda: 1) as client:
        reply = await client.begin_run(MODEL, setting, key=key, cause="x", inputs=b"{}")
        if not reply.begun:
            return
        run, ending = reply.run, ending_of(key)
        if ending == "crash" or (ending == "crash once" and run.attempt == 1):
            os.kill(os.getpid(), signal.SIGSEGV)
        request = pb.EndRunRequest(id=run.id, attempt=run.attempt, result_json=b"{}")
        if ending == "version":
            request.state = pb.Run.REGISTERED
            request.version = (await client.register(MODEL, files_of_key(key))).label
        elif ending == "gate":
            request.state, request.error = pb.Run.GATE_FAILED, "AUC 0.51"
        elif ending == "error":
            request.state, request.error = pb.Run.FAILED, "labels have no column churned"
        else:
            request.state, request.error = pb.Run.CHAMPION_KEPT, "no better"
        await client.end_run(request)


def main() -> None:
    """Take the arguments of turnout.retraining.child."""
    parser = argparse.ArgumentParser()
    for name in ("parent", "memory-mb", "cpu-s", "log-fd"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    confine_training(options.parent, options.memory_mb, options.cpu_s, options.log_fd)
    values = dict(zip(options.command[2::2], options.command[3::2], strict=True))
    asyncio.run(end_as_key_says(values["--registry"], values["--setting"], values["--run-key"]))


if __name__ == "__main__":
    main()
