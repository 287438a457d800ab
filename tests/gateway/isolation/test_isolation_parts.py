"""Probes, proofs, breadcrumbs and a shadow's line, decided without a process."""

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from gateway.isolation.breadcrumbs import (
    BreadcrumbPage,
    Suspects,
    create_breadcrumb_page,
    read_running_versions,
)
from gateway.isolation.child_process import ResourceLimits
from gateway.isolation.load_proofs import REFUSAL_VALID_S, ProofStore
from gateway.isolation.packed_files import pack_files, unpack_files
from gateway.isolation.prober import ProbeLimits, judge_report
from gateway.models.executor import ModelExecutor, Scored
from gateway.shadow.protocol import (
    FRAME_HEADER,
    OPENED_FRAME,
    ScoresDecoder,
    ShadowProtocolError,
    copy_body_size,
    decode_copy,
    encode_copy,
    encode_scores,
)
from gateway.shadow.shadow_process import classify_end
from tests.gateway.canary_at_half import HungScorer

LIMITS = ProbeLimits(resources=ResourceLimits(memory_mb=512, cpu_s=20), seconds=60.0, run_ms=1_000)
LOADING = b'{"doing": "loading model.onnx"}\n'
ID = "ab" * 32


@pytest.mark.parametrize(
    ("report", "code", "timed_out", "reason"),
    [
        (LOADING, -signal.SIGSEGV, False, "SIGSEGV while loading model.onnx"),
        (b"", 1, False, "exit code 1 while starting"),
        (LOADING, -signal.SIGXCPU, False, "used 20 s of CPU while loading"),
        (LOADING, -signal.SIGKILL, True, "not done after 60 s while loading"),
        (LOADING + b'{"refused": "golden row 3"}\n', 0, False, "golden row 3 (in a child of"),
        (LOADING + b'{"doing": "sco', -signal.SIGABRT, False, "SIGABRT while loading"),
        (b'{"proved": {"run_us": 2e6}}\n', 0, False, "2,000 ms at best"),
    ],
)
def test_a_probe_that_did_not_end_well_says_how(
    report: bytes, code: int, timed_out: bool, reason: str
) -> None:
    """The signal by its name, the step it was at, the bound it met and its setting."""
    assert reason in judge_report(report, code, LIMITS, timed_out=timed_out)["refused"]


def test_a_probe_that_proved_it_says_what_it_measured() -> None:
    """What the last line has, and nothing refused; a crash at exit changes nothing."""
    found = judge_report(
        b'{"proved": {"run_us": 20.5, "load_ms": 3.0}}\n', -6, LIMITS, timed_out=False
    )
    assert found == {"run_us": 20.5, "load_ms": 3.0}


def test_a_proof_stays_and_a_refusal_fades(tmp_path: Path) -> None:
    """A proof holds; a refusal for a minute; damage, another host or format are no proof."""
    proofs, now = ProofStore(tmp_path), time.time()
    assert proofs.read_proof(ID, now) is None
    proofs.save_proof(ID, proofs.for_this_host(run_us=20.0, unix_s=now))
    proof = ProofStore(tmp_path).read_proof(ID, now + 1e9)
    assert proof is not None
    assert proof.run_us == 20.0
    proofs.save_proof(ID, proofs.for_this_host(refused="it crashed", unix_s=now))
    held = proofs.read_proof(ID, now + REFUSAL_VALID_S - 1)
    assert held is not None
    assert held.refused == "it crashed"
    assert proofs.read_proof(ID, now + REFUSAL_VALID_S + 1) is None
    (place,) = (tmp_path / "proofs").glob("*.json")
    for content in ("", "[]", '{"host": "another", "format": 1}', '{"more": 1}'):
        place.write_text(content)
        assert proofs.read_proof(ID, now) is None


def test_one_worker_of_a_host_probes_at_a_time(tmp_path: Path) -> None:
    """The second is told so, and may once the first is done."""
    proofs = ProofStore(tmp_path)
    with (
        proofs.probe_lock(ID) as first,
        proofs.probe_lock(ID) as second,
        proofs.probe_lock("cd" * 32) as other,
    ):
        assert (first, second, other) == (True, False, True)
    with proofs.probe_lock(ID) as again:
        assert again


def test_a_parcel_holds_the_very_bytes() -> None:
    """Empty files and names too."""
    files = {"model.onnx": bytes(range(256)) * 100, "card.json": b"", "é": b"{}"}
    parcel = pack_files(files)
    try:
        assert unpack_files(parcel) == files
        assert unpack_files(parcel) == files
    finally:
        os.close(parcel)


class Looked:
    """A scorer that reads the page while it runs."""

    def __init__(self, page: int, fails: bool) -> None:
        self._page = page
        self._fails = fails
        self.seen: list[str] = []

    def run(self, matrix: np.ndarray) -> np.ndarray:
        """Look who runs."""
        self.seen = read_running_versions(self._page)
        if self._fails:
            raise ArithmeticError
        return matrix


@pytest.mark.parametrize("fails", [False, True])
def test_a_page_names_who_runs_and_only_while_it_runs(fails: bool) -> None:
    """Two versions, one runs; afterwards nobody does, whatever came of it; a cell is used again."""
    descriptor = create_breadcrumb_page()
    page = BreadcrumbPage(os.dup(descriptor))
    looked = Looked(descriptor, fails)
    page.wrap_scorer("cd" * 32, looked)
    scorer = page.wrap_scorer(ID, looked)
    for _ in range(3):
        try:
            scorer.run(np.zeros((1, 1), dtype=np.float32))
        except ArithmeticError:
            assert fails
        assert looked.seen == [ID]
        assert read_running_versions(descriptor) == []
    page.release_cell(ID)
    again = page.wrap_scorer("ef" * 32, looked)
    try:
        again.run(np.zeros((1, 1), dtype=np.float32))
    except ArithmeticError:
        assert fails
    assert looked.seen == ["ef" * 32]
    os.close(descriptor)


def test_two_deaths_condemn_once() -> None:
    """The first says nothing; the second names it, how, and when it began; the third nothing."""
    suspects = Suspects()
    assert suspects.record_crash("SIGSEGV", [ID, "cd" * 32], 10) == []
    assert suspects.record_crash("SIGFPE", [], 15) == []
    assert suspects.record_crash("SIGABRT", [ID], 20) == [ID]
    assert suspects.quarantined == {
        ID: ("2 workers died while they ran it, the last by SIGABRT", 10)
    }
    assert suspects.record_crash("SIGSEGV", [ID], 30) == []


@pytest.mark.parametrize(
    ("code", "cause", "opened", "asked", "told"),
    [
        (-signal.SIGFPE, "", True, True, ("crashed", True)),
        (1, "", True, True, ("crashed", True)),
        (-signal.SIGFPE, "", True, False, ("crashed", False)),
        (-signal.SIGSEGV, "", False, True, ("not_opened", False)),
        (-signal.SIGKILL, "", True, True, ("killed", False)),
        (-signal.SIGKILL, "hung", True, True, ("hung", True)),
        (-signal.SIGKILL, "silent", True, True, ("silent", False)),
        (-signal.SIGKILL, "bad_reply", True, True, ("bad_reply", True)),
    ],
)
def test_a_version_is_blamed_only_for_what_it_did(
    code: int, cause: str, opened: bool, asked: bool, told: tuple[str, bool]
) -> None:
    """SIGKILL from outside, a stopped process, a death between runs: not the version's doing."""
    end = classify_end(code, cause, opened=opened, copy_pending=asked)
    assert (end.cause, end.blamed) == told


def test_a_copy_and_its_answer_survive_any_cut() -> None:
    """Bytes one at a time, two answers at once: whole answers, in order."""
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    offsets = np.array([0, 1, 4], dtype=np.uint32)
    frame = encode_copy(matrix, offsets)
    head, body = frame[: FRAME_HEADER.size], frame[FRAME_HEADER.size :]
    assert len(body) == copy_body_size(head, 3)
    again, cuts = decode_copy(head, body, 3)
    assert np.array_equal(again, matrix)
    assert np.array_equal(cuts, offsets)
    scores = np.array([[1], [2], [np.nan], [4]], dtype=np.float32)
    answer = encode_scores(Scored(scores, np.array([0, 2], dtype=np.uint8)))
    answers = ScoresDecoder(1)
    whole: list[Scored] = []
    for byte in OPENED_FRAME + answer + answer:
        due = [(0, 0), (2, 4), (2, 4)][len(whole) :]
        whole += answers.feed(bytes([byte]), due)
    assert len(whole) == 3
    for scored in whole[1:]:
        assert np.array_equal(scored.scores, scores, equal_nan=True)
        assert scored.faults.tolist() == [0, 2]
    assert len(ScoresDecoder(1).feed(answer + answer, [(2, 4), (2, 4)])) == 2


@pytest.mark.parametrize("due", [[], [(1, 4)], [(2, 5)]])
def test_an_answer_that_is_not_due_ends_the_line(due: list[tuple[int, int]]) -> None:
    """Unasked, or for another number of calls or rows."""
    answer = encode_scores(Scored(np.zeros((4, 1), dtype=np.float32), np.zeros(2, dtype=np.uint8)))
    with pytest.raises(ShadowProtocolError, match="due"):
        ScoresDecoder(1).feed(answer, due)


def test_a_lane_that_is_let_go_still_answers_who_holds_it() -> None:
    """A rollback meets a batch in the middle: what was asked before and after is answered."""
    hung = HungScorer()
    matrix, offsets = np.zeros((2, 3), dtype=np.float32), np.array([0, 2], dtype=np.uint32)

    async def walk() -> list[Scored]:
        lane = ModelExecutor(hung, 1)
        before = [lane.start_run(matrix, offsets) for _ in range(3)]
        lane.close()
        after = lane.start_run(matrix, offsets)
        hung.released.set()
        lane.close()
        return [await run.wait() for run in [*before, after]]

    assert [scored.faultless for scored in asyncio.run(walk())] == [True] * 4
