"""Pictures: an SVG needs nothing; a PNG has its words, or says what is missing."""

import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from protos import rollout_pb2
from rollout.api.evidence_plot import draw_evidence_plot
from turnout.errors import OperatorError
from turnout.views.pictures import FONT_FAMILIES, installed_font, render_png, write_picture


def race() -> str:
    """A race of two metrics over ten seconds."""
    told = rollout_pb2.RolloutExplanation()
    told.status.model, told.status.version, told.status.baseline = "churn", "7", "6"
    for metric in ("errors", "p99"):
        told.status.evidence.add(metric=metric, log_threshold=6.5)
    for second in range(10):
        told.evidence_history.add(
            second=second, stage=rollout_pb2.CANARY_STAGE, share_bp=500, log_e=[0.5 * second, 1.0]
        )
    return draw_evidence_plot(told)


def test_an_svg_needs_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written as it stands; a PNG says how to get the library; another ending is refused."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    write_picture(race(), tmp_path / "race.svg")
    assert (tmp_path / "race.svg").read_text() == race()
    with pytest.raises(OperatorError, match=r"pip install 'turnout\[plots\]'"):
        write_picture(race(), tmp_path / "race.png")
    with pytest.raises(OperatorError, match=r"is .svg or .png"):
        write_picture(race(), tmp_path / "race.pdf")


@pytest.mark.walk
def test_a_png_is_the_picture_with_its_words(tmp_path: Path) -> None:
    """Twice as wide and high as the SVG; without its words it would be another one."""
    resvg = pytest.importorskip("resvg_py", reason="the plots extra is not installed")
    try:
        family = installed_font(resvg.svg_to_bytes)
    except OperatorError as error:
        pytest.skip(str(error))
    assert family in FONT_FAMILIES
    write_picture(race(), tmp_path / "race.png")
    drawn = (tmp_path / "race.png").read_bytes()
    assert drawn[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", drawn[16:24]) == (1920, 840)
    assert drawn == render_png(race())
    assert drawn != bytes(resvg.svg_to_bytes(svg_string=race(), skip_system_fonts=True, zoom=2.0))


def test_a_host_without_fonts_is_told_so() -> None:
    """Instead of being given a picture without words; the first family that draws is taken."""

    def bare(**_: Any) -> bytes:  # noqa: ANN401  resvg's own options
        return b"nothing drawn"

    def noto(**options: Any) -> bytes:  # noqa: ANN401
        return (options.get("sans_serif_family", "").encode() == b"Noto Sans" and b"Ag") or b""

    assert installed_font(noto) == "Noto Sans"
    with pytest.raises(OperatorError, match="none of the fonts DejaVu Sans"):
        installed_font(bare)
