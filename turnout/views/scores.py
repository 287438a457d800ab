"""The scores of a row for people."""

from collections.abc import Sequence

LARGE = 1_000.0
"""From here on a score needs two places only."""


def score_text(scores: Sequence[float], outputs: Sequence[str]) -> str:
    """Return the scores of one row for people, several of them by the names of the outputs."""
    texts = [f"{score:.4f}" if abs(score) < LARGE else f"{score:,.2f}" for score in scores]
    if len(texts) == 1 or len(texts) != len(outputs):
        return " ".join(texts)
    return ", ".join(f"{name} {text}" for name, text in zip(outputs, texts, strict=True))
