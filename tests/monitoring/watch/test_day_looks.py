"""What looks know of a version comes from its sealed files."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from features.contract import ModelContract, ViewUse
from features.views import Feature, View
from monitoring.looks.day_looks import DayLook, facts_of_files
from monitoring.looks.estimate_look import EstimateLook
from monitoring.looks.fairness_look import FairnessLook
from monitoring.looks.quality_look import QualityLook
from monitoring.looks.uplift_look import UpliftLook
from registry.bundle import seal_files
from tests.monitoring.outcome_world import FIRST_DAY, OutcomeWorld, churn_day, churn_facts
from tests.tiny_models import tiny_contract, tiny_files

VIEW = View(
    name="plan",
    entities=("subscriber",),
    features=(
        Feature(name="kind", dtype="category", dictionary=("prepaid", "contract"), default=0.0),
        Feature(name="spend"),
    ),
    ttl_ms=1_000,
    transform="SELECT subscriber, event_time_ms, kind, spend FROM source",
)


def contract_of_view() -> ModelContract:
    """Return a contract of two features of a view, and inputs of the request."""
    use = ViewUse(view=VIEW, features=("kind", "spend"))
    return replace(tiny_contract(), entities=("subscriber",), views=(use,))


def test_facts_are_those_of_the_files() -> None:
    """Metrics of the card, the views of inputs, the texts of codes, and the entities."""
    card = {"metrics": {"auc": {"value": 0.75}, "brier": 0.2}, "label": "churned"}
    files = seal_files(
        tiny_files(contract=contract_of_view(), card=card),
        model="churn",
        author="ada",
        created_unix_ms=1,
    )
    digest = sha256(files["manifest.json"]).hexdigest()
    facts = facts_of_files("7", digest, files)
    assert (facts.model, facts.version, facts.digest) == ("churn", "7", digest)
    assert (facts.metric("auc"), facts.metric("brier"), facts.metric("recall")) == (0.75, 0.2, None)
    assert facts.views == {"plan:kind": "plan", "plan:spend": "plan"}
    assert facts.dictionaries == {"plan:kind": ("prepaid", "contract")}
    assert facts.entities == ("subscriber",)


def test_looks_are_what_the_runner_asks(tmp_path: Path) -> None:
    """Each has a name of its own, and says nothing of a day without rows."""
    world = OutcomeWorld(tmp_path)
    looks: tuple[DayLook, ...] = (
        QualityLook(world.cohorts),
        EstimateLook(world.cohorts),
        UpliftLook(world.cohorts, lambda *_: None),
        FairnessLook(world.cohorts),
    )
    assert [look.name for look in looks] == ["quality", "estimate", "uplift", "fairness"]
    for look in looks:
        found = look.look(churn_day(FIRST_DAY, facts=churn_facts({})), {})
        assert found.alarms == ()
        assert not any(item.figure.known for item in found.figures)
        assert json.loads(json.dumps(found.state)) == found.state
    world.store.close()
