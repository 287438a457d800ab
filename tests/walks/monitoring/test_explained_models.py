"""The four models of the example are explained by the ids of their predictions."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.walks.clients.page_snippets import snippets
from tests.walks.running_system import poll_system_until

if TYPE_CHECKING:
    from tests.walks.four_models import FourModels

pytestmark = pytest.mark.walk

PAGE = Path(__file__).parents[3] / "docs" / "explaining.md"
KEYS = {
    "churn": ["S0000042"],
    "propensity": ["S0000042"],
    "credit": ["S0000042"],
    "nba": ["S0000042", "O001"],
}


@pytest.mark.parametrize("model", KEYS)
def test_prediction_of_the_example_is_explained(four_models: "FourModels", model: str) -> None:
    """Contributions add up, for each kind of learner of the example and through stored features."""
    system = four_models.system
    prediction = system.turnout("predict", model, *KEYS[model])

    def ask() -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = system.turnout("explain", prediction["prediction_id"])
        except AssertionError as error:
            if "no journal here has this prediction" not in str(error):
                raise
            return None
        return answer

    answer = poll_system_until(ask, 30.0, "the prediction in the journal")
    assert answer["score"] == pytest.approx(prediction["scores"][0][0], abs=1e-5)
    total = answer["base"] + sum(item["contribution"] for item in answer["contributions"])
    assert total == pytest.approx(answer["margin"], abs=1e-9)
    assert answer["background"] == "200 rows of the training data"
    # Credit has reasons for refusals, and the others have none.
    if model != "credit":
        assert answer["decision"] == "not_known"
    elif answer["decision"] == "adverse":
        assert answer["reasons"]
    else:
        assert answer["decision"] == "favourable"


def test_commands_of_the_page_run(four_models: "FourModels") -> None:
    """Each command of docs/explaining.md exits with 0, beside a system with the models."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    blocks = snippets(PAGE, "console")
    assert len(blocks) == 2
    for command in (command for block in blocks for command in block.commands):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=four_models.base,
            env={**os.environ, "PATH": programs, "TURNOUT_FOLDER": ".turnout/demo"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
