"""`turnout rollout plot`: SVG and PNG by matplotlib, or a message that says how to install it."""

import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from protos import rollout_pb2
from rollout.api.evidence_plot import draw_evidence_plot
from turnout.errors import OperatorError
from turnout.views.pictures import write_evidence_plot


def ten_second_explanation() -> rollout_pb2.RolloutExplanation:
    """Return the evidence of two metrics over ten seconds."""
    explanation = rollout_pb2.RolloutExplanation()
    status = explanation.status
    status.model, status.version, status.baseline = "churn", "7", "6"
    for metric in ("errors", "p99"):
        status.evidence.add(metric=metric, log_threshold=6.5)
    for second in range(10):
        explanation.evidence_history.add(
            second=second, stage=rollout_pb2.CANARY_STAGE, share_bp=500, log_e=[0.5 * second, 1.0]
        )
    return explanation


@pytest.mark.walk
def test_evidence_plot_has_a_line_for_each_metric(tmp_path: Path) -> None:
    """The SVG is well formed whatever the numbers. Without evidence it says so."""
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    status = rollout_pb2.RolloutStatus(
        model="a<b", version="2", verdict="FAULTY", reason="p99 & co, $1 $2"
    )
    for name in ("errors", "p99"):
        status.evidence.add(metric=name, log_threshold=6.0)
    explanation = rollout_pb2.RolloutExplanation(status=status)
    file = tmp_path / "evidence.svg"
    draw_evidence_plot(explanation, file)
    assert "was judged" in file.read_text()
    for second in range(5):
        explanation.evidence_history.add(
            second=1_790_000_000 + second,
            stage="CANARY_STAGE",
            share_bp=500,
            log_e=[second, math.inf],
        )
    draw_evidence_plot(explanation, file)
    drawn = file.read_text()
    assert drawn.count('<g id="metric-') == 2
    assert "a&lt;b" in drawn
    assert "nan" not in drawn


def test_write_evidence_plot_without_matplotlib_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both formats need the extra; another ending is refused."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("evidence.svg", "evidence.png"):
        with pytest.raises(OperatorError, match=r"pip install 'turnout\[plots\]'"):
            write_evidence_plot(ten_second_explanation(), tmp_path / name)
        assert not (tmp_path / name).exists()
    with pytest.raises(OperatorError, match=r"is .svg or .png"):
        write_evidence_plot(ten_second_explanation(), tmp_path / "evidence.pdf")


@pytest.mark.walk
def test_write_evidence_plot_chooses_the_format_by_the_ending(tmp_path: Path) -> None:
    """The PNG is 1920 x 840 pixels. Equal explanations give equal files of both formats."""
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    for name in ("evidence.png", "again.png", "evidence.svg", "again.svg"):
        write_evidence_plot(ten_second_explanation(), tmp_path / name)
    png = (tmp_path / "evidence.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (1920, 840)
    assert png == (tmp_path / "again.png").read_bytes()
    svg = (tmp_path / "evidence.svg").read_text()
    assert "churn 7 beside 6" in svg
    assert svg == (tmp_path / "again.svg").read_text()
    other = ten_second_explanation()
    other.status.reason = "other words"
    write_evidence_plot(other, tmp_path / "other.png")
    assert png != (tmp_path / "other.png").read_bytes()


@pytest.mark.walk
def test_matplotlib_is_not_imported_by_rollout_or_by_help() -> None:
    """A server and a short command must not pay for pictures."""
    program = (
        "import sys, contextlib\n"
        "import rollout.api.server, rollout.api.evidence_plot\n"
        "from turnout.__main__ import main\n"
        "sys.argv[1:] = ['--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
