"""What looks know of a version comes from its sealed files."""

from dataclasses import replace
from hashlib import sha256

from features.contract import ModelContract, ViewUse
from features.views import Feature, View
from monitoring.looks.day_looks import facts_of_files
from registry.bundle import seal_files
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
