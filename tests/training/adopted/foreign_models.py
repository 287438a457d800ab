"""Foreign models as adoption sees them, without a file."""

from features.views import Feature, View
from training.adopted.proposals import KnownFeature
from training.adoption.foreign import ForeignInput, ForeignModel, ForeignOutput

PROBABILITIES = ForeignOutput("probabilities", "probabilities", 2, ("leaves", "stays"))
LABEL = ForeignOutput("label", "label", 1)


def foreign_model(
    *inputs: ForeignInput, outputs: tuple[ForeignOutput, ...] = (LABEL, PROBABILITIES)
) -> ForeignModel:
    """Return a model of these inputs; without any, of two numbers and a text."""
    default = (
        ForeignInput("numbers", "float", ("Tenure-Months", "age")),
        ForeignInput("plan", "text", ("plan",), (("post", "pre"),)),
    )
    return ForeignModel("a test", b"", inputs or default, outputs)


def known_features() -> list[KnownFeature]:
    """Return the features of a view: a number, a category, and a number of another name."""
    view = View(
        name="usage",
        entities=("subscriber",),
        features=(
            Feature(name="tenure_months", default=None),
            Feature(name="plan", dtype="category", dictionary=("pre", "post", "hybrid")),
            Feature(name="minutes"),
        ),
        ttl_ms=86_400_000,
        transform="SELECT * FROM source",
    )
    return [KnownFeature(view, feature) for feature in view.features]
