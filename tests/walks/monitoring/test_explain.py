"""`turnout explain` of served rows and given ones, in a running system with real processes."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.explanation.reasons import ReasonGroup, Reasons
from tests.registry.explanation.versions import version_files
from tests.tiny_models import linear_model, tiny_contract
from tests.walks.running_system import RunningSystem, poll_system_until

pytestmark = pytest.mark.walk

MODEL = "told"
WEIGHTS = np.array([[0.5], [0.3], [0.1]], dtype=np.float32)
REASONS = Reasons(
    adverse="above",
    groups=(
        ReasonGroup(
            name="use",
            features=("f0",),
            texts={"en": "You use much.", "de": "Sie nutzen viel."},
            changeable=True,
            direction="down",
        ),
        ReasonGroup(name="age", features=("f1",), disclosed=False, protected=True),
    ),
)


@pytest.fixture(scope="module")
def explained_version(
    running_system: RunningSystem, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A version with reasons in production; its label."""
    contract = tiny_contract()
    onnx = linear_model(3, weights=WEIGHTS, metadata={"turnout.contract": contract.model_contract})
    rows = np.random.default_rng(5).random((200, 3), dtype=np.float32)
    files = version_files(onnx, rows, contract, more={"reasons.toml": REASONS.to_toml()})
    folder: Path = tmp_path_factory.mktemp("told") / "files"
    folder.mkdir()
    for name in files.keys() - {"manifest.json"}:
        (folder / name).write_bytes(files[name])
    line = ("versions", "register", MODEL, str(folder))
    label: str = running_system.turnout(*line, actor="dana")["label"]
    running_system.approve(MODEL, label, "initial")
    running_system.deploy(MODEL, label)
    return label


def predicted(system: RunningSystem, *inputs: float) -> dict[str, Any]:
    """Score a row through the gateway."""
    named = [part for index, value in enumerate(inputs) for part in ("-i", f"f{index}={value}")]
    prediction: dict[str, Any] = system.turnout("predict", MODEL, "S1", *named)
    return prediction


def explained(system: RunningSystem, *line: str) -> dict[str, Any]:
    """Explain once the journal has the prediction; a worker writes it after the reply."""

    def ask() -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = system.turnout("explain", *line)
        except AssertionError as error:
            if "no journal here has this prediction" not in str(error):
                raise
            return None
        return answer

    found: dict[str, Any] = poll_system_until(ask, 20.0, "the prediction in the journal")
    return found


def test_prediction_is_explained_by_its_id(
    running_system: RunningSystem, explained_version: str
) -> None:
    """Contributions add up to the served score, reasons are in words, and the change is proven."""
    prediction = predicted(running_system, 0.9, 0.8, 0.5)
    answer = explained(running_system, prediction["prediction_id"], "--language", "de")
    assert (answer["model"], answer["version"]) == (MODEL, explained_version)
    score = prediction["scores"][0][0]
    assert answer["score"] == pytest.approx(score, abs=1e-6)
    total = answer["base"] + sum(item["contribution"] for item in answer["contributions"])
    assert total == pytest.approx(score, abs=1e-5)
    # The largest reason may be told, and the second is protected.
    first, second = answer["reasons"]
    assert (first["text"], first["problem"]) == ("Sie nutzen viel.", "")
    assert second["text"] == ""
    assert "protected" in second["problem"]
    # The gateway's own answer to the changed row is the other decision.
    (change,) = answer["change"]
    assert change["feature"] == "f0"
    assert float(change["after"]) < 0.9
    other = predicted(running_system, float(change["after"]), 0.8, 0.5)
    assert other["scores"][0][0] < 0.5
    assert other["scores"][0][0] == pytest.approx(answer["changed_score"], abs=1e-5)


def test_row_is_explained_without_an_id(
    running_system: RunningSystem, explained_version: str
) -> None:
    """By the names of its inputs; what is left out has its default."""
    line = ("--model", MODEL, "--version", explained_version, "-i", "f0=0.2")
    answer = explained(running_system, *line)
    assert answer["score"] == pytest.approx(0.1, abs=1e-6)
    assert answer["decision"] == "favourable"
    assert answer["reasons"] == []
    assert answer["served_unix_ns"] == 0


def test_child_that_is_killed_is_replaced(
    running_system: RunningSystem, explained_version: str
) -> None:
    """The control process goes on, and the next explanation prepares the version again."""
    line = ("--model", MODEL, "--version", explained_version, "-i", "f0=0.7", "--no-change")
    before = explained(running_system, *line)
    control = running_system.addresses.children["control"][0]
    for child in children_of(control):
        os.kill(child, signal.SIGKILL)
    again = explained(running_system, *line)
    assert again["explanation_id"] == before["explanation_id"]
    assert running_system.addresses.children["control"][0] == control


def children_of(pid: int) -> list[int]:
    """The explaining children of a process."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
        if b"monitoring.explain.child" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert children
    return children


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("ab" * 64,), "no journal here has this prediction"),
        (("--model", MODEL, "--version", "99", "-i", "f0=1"), "99"),
        (("--model", MODEL, "--version", "1", "-i", "f9=1"), "names 0 inputs of the version"),
        (("--model", MODEL, "--version", "1", "-i", "f0=words"), "is a number"),
        (
            ("--model", MODEL, "--version", "1", "-i", "f0=1", "--language", "fr"),
            "no reasons in 'fr'",
        ),
    ],
)
def test_wrong_question_gets_a_sentence(
    running_system: RunningSystem, explained_version: str, line: tuple[str, ...], message: str
) -> None:
    """A forged id, an unknown version, input, word and language."""
    assert message in running_system.turnout("explain", *line, exit_code=1)


def test_wrong_usage_is_refused_before_it_is_asked(running_system: RunningSystem) -> None:
    """A short id, and a number that float32 has not."""
    assert "128 hex digits" in running_system.turnout("explain", "ab" * 10, exit_code=2)
    line = ("--model", MODEL, "--version", "1", "-i", "f0=1e300")
    assert "float32" in running_system.turnout("explain", *line, exit_code=2)
    assert "float32" in running_system.turnout("predict", MODEL, "S1", *line[4:], exit_code=2)


def test_version_from_before_there_was_a_background_is_refused(
    running_system: RunningSystem,
) -> None:
    """Its reference has no counts either, so there is nothing to compare a score with."""
    line = ("explain", "--model", "tiny", "--version", "1", "-i", "f0=1")
    assert "has no background.npz" in running_system.turnout(*line, exit_code=1)
