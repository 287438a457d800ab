"""Pictures of rollouts as SVG or PNG; they need the extra `plots`."""

from pathlib import Path

from protos import rollout_pb2
from turnout.errors import OperatorError

PICTURE_ENDINGS = (".svg", ".png")


def write_evidence_plot(explanation: rollout_pb2.RolloutExplanation, file: Path) -> None:
    """Draw the evidence of a rollout to *file*, as SVG or PNG by its ending.

    Raises OperatorError for another ending, and when matplotlib is not installed.
    """
    from rollout.api.evidence_plot import draw_evidence_plot

    if file.suffix.lower() not in PICTURE_ENDINGS:
        raise OperatorError(f"a picture is .svg or .png, and {file.name} ends in {file.suffix!r}")
    try:
        draw_evidence_plot(explanation, file)
    except ImportError as error:
        raise OperatorError(
            "a picture needs the extra plots: pip install 'turnout[plots]'"
        ) from error
