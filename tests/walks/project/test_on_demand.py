"""Features on demand from a project's recipe to a prediction, with inputs that callers send."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.walks.running_system import RunningSystem, turnout_up

pytestmark = pytest.mark.walk

RECIPE = """
from labels.churned import churned as outcomes
from turnout.define import GateSettings, Learner, OnDemand, Recipe, RequestInput, ViewUse
from views.customers import customers

first = Recipe(
    model="churned",
    setting="first",
    features=(ViewUse(view=customers, features=("last_topup_day", "mean_bill")),),
    inputs=(
        RequestInput(name="amount", default=0.0),
        RequestInput(name="channel", dictionary=("shop", "web")),
    ),
    on_demand=(
        OnDemand(name="days_quiet", expression="now / 86400 - last_topup_day", default=90.0),
        OnDemand(name="share", expression="clip(amount / mean_bill, 0, 10)"),
    ),
    withheld=("last_topup_day",),
    label="churned",
    labels=outcomes,
    learner=Learner(kind="boosting", parameters={"max_iter": 20}),
    # The labels are made from `share`, which alone tells them.
    gate=GateSettings(auc_min=0.9, feature_auc_max=1.0),
)
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """Return a running system."""
    with turnout_up(tmp_path_factory.mktemp("system") / ".turnout") as running:
        yield running


def write_table(path: Path) -> None:
    """Write customers who leave when the amount of the call is above their usual bill."""
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'K' || i AS customer_id, now()::TIMESTAMP - INTERVAL 1 DAY AS taken_at, "
            "20000 + (i * 7919) % 40 AS last_topup_day, 10 + (i * 31) % 50 AS mean_bill, "
            "['shop', 'web', NULL][i % 3 + 1] AS channel, ((i * 17) % 100) / 1.0 AS amount, "
            "(i * 17) % 100 > 10 + (i * 31) % 50 AS churned FROM range(3000) t(i)) "
            f"TO '{path}'"
        )


def test_a_recipe_with_inputs_and_expressions_gives_a_prediction(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`turnout try` sends the inputs of a label, and the printed client code gives its score."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "customers.parquet")
    source = ["--from", str(tmp_path / "customers.parquet"), "--time", "taken_at"]
    system.turnout(
        *("init", "shop", *source, "--entity", "customer_id", "--label", "churned"),
    )
    root = tmp_path / "shop"
    # The recipe reads what callers send, and the labels have it.
    (root / "recipes" / "churned.py").write_text(RECIPE)
    labels = root / "labels" / "churned.py"
    text = labels.read_text()
    text = text.replace('value="churned",', 'value="churned", inputs=("amount", "channel"),')
    labels.write_text(text.replace('"churned" AS churned', '"churned" AS churned, amount, channel'))
    tried = system.turnout("try", "--project", str(root))
    assert tried["inputs"].keys() <= {"amount", "channel"}
    assert "amount" in tried["inputs"]
    score = tried["prediction"]["scores"][0][0]
    # The printed code asks for the same, and an input moves the score.
    command = [sys.executable, "-c", tried["client_code"]]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(finished.stdout.split()[0]) == pytest.approx(score, abs=1e-6)
    scores = [
        system.turnout("predict", "churned", *tried["keys"], "--input", f"amount={amount}")
        for amount in (0, 99)
    ]
    low, high = (prediction["scores"][0][0] for prediction in scores)
    assert low < 0.2 < 0.8 < high
    # A mistake in an expression is told with its recipe, before anything is applied.
    (root / "recipes" / "churned.py").write_text(RECIPE.replace("amount / mean", "amount / meen"))
    told = system.turnout("plan", "--project", str(root), exit_code=1)
    assert "recipe churned/first: on-demand feature 'share'" in str(told)
    assert "`meen_bill`: no such column" in str(told)
