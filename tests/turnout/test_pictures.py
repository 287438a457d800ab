"""Writing the evidence plot as SVG, and as PNG with the extra `plots`."""

import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from protos import rollout_pb2
from rollout.api.evidence_plot import draw_evidence_plot
from turnout.errors import OperatorError
from turnout.views.pictures import FONT_FAMILIES, installed_font, render_png, write_picture


def evidence_plot() -> str:
    """Return the evidence plot of two metrics over ten seconds, as SVG."""
    explanation = rollout_pb2.RolloutExplanation()
    explanation.status.model, explanation.status.version, explanation.status.baseline = (
        "churn",
        "7",
        "6",
    )
    for metric in ("errors", "p99"):
        explanation.status.evidence.add(metric=metric, log_threshold=6.5)
    for second in range(10):
        explanation.evidence_history.add(
            second=second, stage=rollout_pb2.CANARY_STAGE, share_bp=500, log_e=[0.5 * second, 1.0]
        )
    return draw_evidence_plot(explanation)


def test_write_picture_needs_no_library_for_an_svg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library, a PNG is refused with the way to install it; so is another ending."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    write_picture(evidence_plot(), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text() == evidence_plot()
    with pytest.raises(OperatorError, match=r"pip install 'turnout\[plots\]'"):
        write_picture(evidence_plot(), tmp_path / "plot.png")
    with pytest.raises(OperatorError, match=r"is .svg or .png"):
        write_picture(evidence_plot(), tmp_path / "plot.pdf")


@pytest.mark.walk
def test_write_picture_draws_a_png_with_its_text(tmp_path: Path) -> None:
    """It is twice as wide and high as the SVG, and differs from the one without text."""
    resvg = pytest.importorskip("resvg_py", reason="the plots extra is not installed")
    try:
        family = installed_font(resvg.svg_to_bytes)
    except OperatorError as error:
        pytest.skip(str(error))
    assert family in FONT_FAMILIES
    write_picture(evidence_plot(), tmp_path / "plot.png")
    drawn = (tmp_path / "plot.png").read_bytes()
    assert drawn[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", drawn[16:24]) == (1920, 840)
    assert drawn == render_png(evidence_plot())
    assert drawn != bytes(
        resvg.svg_to_bytes(svg_string=evidence_plot(), skip_system_fonts=True, zoom=2.0)
    )


def test_installed_font_is_refused_on_a_host_without_fonts() -> None:
    """A PNG would lack its text. Otherwise the first font that draws anything is taken."""

    def draw_without_fonts(**_: Any) -> bytes:  # noqa: ANN401  resvg's own options
        return b"nothing drawn"

    def draw_with_noto(**options: Any) -> bytes:  # noqa: ANN401
        return (options.get("sans_serif_family", "").encode() == b"Noto Sans" and b"Ag") or b""

    assert installed_font(draw_with_noto) == "Noto Sans"
    with pytest.raises(OperatorError, match="none of the fonts DejaVu Sans"):
        installed_font(draw_without_fonts)
