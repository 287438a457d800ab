"""Each extra installs what its part needs, and nothing of the other parts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.sources import REPOSITORY

pytestmark = [pytest.mark.walk, pytest.mark.nightly]

DRAIN_S_MAX = 60

PARTS = {
    "gateway": (
        ["gateway.worker", "gateway.__main__", "gateway.isolation.probe", "gateway.shadow.scorer"],
        ["duckdb", "sklearn", "skl2onnx", "onnx", "sqlalchemy", "typer", "rich"],
    ),
    "control": (
        [
            "registry.__main__",
            "registry.probe",
            "rollout.__main__",
            "turnout.control",
            "turnout.__main__",
        ],
        ["duckdb", "sklearn", "skl2onnx", "onnx", "hiredis"],
    ),
    "training": (
        ["training.champion", "training.train", "training.export.convert", "features.materialise"],
        ["hiredis", "sqlalchemy", "typer"],
    ),
}
"""Extra -> (modules that it must be able to import, modules that must be absent)."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheels turnout and turnout-client into one folder."""
    folder: Path = tmp_path_factory.mktemp("wheels")
    for project in (REPOSITORY, REPOSITORY / "clients" / "python"):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
        subprocess.run([*build, str(folder), str(project)], check=True, capture_output=True)
    return folder


def install(extra: str, wheels: Path, environment: Path) -> Path:
    """Create *environment* with `turnout[extra]` from *wheels*; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    (turnout,) = wheels.glob("turnout-*.whl")
    (client,) = wheels.glob("turnout_client-*.whl")
    requirements = [f"turnout[{extra}] @ {turnout.as_uri()}"]
    requirements += [str(client)] if extra in ("control", "all") else []
    line = [str(python), "-m", "pip", "install", "-q", *requirements]
    finished = subprocess.run(line, capture_output=True, text=True)
    assert finished.returncode == 0, f"this test needs the package registry:\n{finished.stderr}"
    return python


@pytest.mark.parametrize("extra", PARTS)
def test_extra_installs_its_part_and_no_other(extra: str, wheels: Path, tmp_path: Path) -> None:
    """Imports the part's entry points in an empty environment; -I hides this repository."""
    python = install(extra, wheels, tmp_path / "environment")
    modules, absent = PARTS[extra]
    program = (
        "import importlib, importlib.util\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {absent!r} if importlib.util.find_spec(name)])"
    )
    finished = subprocess.run(
        [str(python), "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert finished.returncode == 0, f"turnout[{extra}]:\n{finished.stderr}"
    assert finished.stdout == "[]\n", f"turnout[{extra}] brings {finished.stdout}"
    if extra == "gateway":
        assert_gateway_serves(python, tmp_path)


def assert_gateway_serves(python: Path, folder: Path) -> None:
    """Start a gateway of one worker from *python*, and stop it when the worker serves."""
    command = [str(python), "-I", "-m", "gateway", "--set", "workers=1", "--ingress", "grpcio"]
    with subprocess.Popen(
        [*command, "--set", f"folder={folder / 'gateway'}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as gateway:
        assert gateway.stdout is not None
        serving = any(json.loads(line)["serving"] == 1 for line in gateway.stdout)
        gateway.terminate()
        assert serving
        assert gateway.wait(timeout=DRAIN_S_MAX) == 0


TABLE = """
import duckdb
duckdb.sql("COPY (SELECT 'C' || i AS customer_id, now()::TIMESTAMP AS seen_at, (hash(i) % 100)::INT"
" AS minutes, (hash(i) % 100 + hash(i + 7) % 60) > 80 AS churned FROM range(5000) t(i))"
" TO 'customers.parquet'")
"""


@pytest.mark.timeout(900)
def test_wheel_takes_a_table_to_a_prediction(wheels: Path, tmp_path: Path) -> None:
    """Outside of this repository, with nothing but the installed wheel: init, try, predict."""
    python = install("all", wheels, tmp_path / "environment")

    def run(*line: str, folder: Path) -> str:
        command = [str(python), "-I", *line]
        finished = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert finished.returncode == 0, f"{line}:\n{finished.stderr}"
        return finished.stdout

    # A table that nobody has described.
    run("-c", TABLE, folder=tmp_path)
    turnout = ("-m", "turnout")
    columns = ("--entity", "customer_id", "--time", "seen_at", "--label", "churned")
    run(*turnout, "init", "shop", "--from", "customers.parquet", *columns, folder=tmp_path)
    tried = json.loads(run(*turnout, "try", "--json", "--as", "dana", folder=tmp_path / "shop"))
    # The client code runs beside the system, which is stopped whatever it says.
    try:
        assert run("-c", tried["client_code"], folder=tmp_path).split()[1] == "1"
    finally:
        os.kill(tried["started_pid"], signal.SIGTERM)
