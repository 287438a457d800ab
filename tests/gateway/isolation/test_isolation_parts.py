"""The parts of isolation that need no process: reports, proofs, breadcrumbs, shadow protocol."""

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
from gateway.isolation.load_proofs import REFUSAL_VALID_S, ProofStore
from gateway.isolation.prober import refuse_slow_row
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

ID = "ab" * 32


def test_probe_refuses_a_version_whose_fastest_row_is_too_slow() -> None:
    """Other results stay as they are."""
    assert refuse_slow_row({"run_us": 2e4}, 1_000) == {"run_us": 2e4}
    assert refuse_slow_row({"refused": "it crashed"}, 1_000) == {"refused": "it crashed"}
    assert "2,000 ms at best" in refuse_slow_row({"run_us": 2e6}, 1_000)["refused"]


def test_proof_store_keeps_proofs_and_forgets_refusals_after_a_minute(tmp_path: Path) -> None:
    """A damaged file, and one of another host or format, is no proof."""
    proofs, now = ProofStore(tmp_path), time.time()
    assert proofs.read_proof(ID, now) is None
    proofs.save_proof(ID, proofs.for_this_host(run_us=20.0, unix_s=now))
    proof = ProofStore(tmp_path).read_proof(ID, now + 1e9)
    assert proof is not None
    assert proof.run_us == 20.0
    proofs.save_proof(ID, proofs.for_this_host(refused="it crashed", unix_s=now))
    refusal = proofs.read_proof(ID, now + REFUSAL_VALID_S - 1)
    assert refusal is not None
    assert refusal.refused == "it crashed"
    assert proofs.read_proof(ID, now + REFUSAL_VALID_S + 1) is None
    (path,) = (tmp_path / "proofs").glob("*.json")
    for content in ("", "[]", '{"host": "another", "format": 1}', '{"more": 1}'):
        path.write_text(content)
        assert proofs.read_proof(ID, now) is None


def test_probe_lock_is_given_to_one_worker_at_a_time(tmp_path: Path) -> None:
    """The second worker does not get the lock until the first has released it."""
    proofs = ProofStore(tmp_path)
    with (
        proofs.probe_lock(ID) as first,
        proofs.probe_lock(ID) as second,
        proofs.probe_lock("cd" * 32) as other,
    ):
        assert (first, second, other) == (True, False, True)
    with proofs.probe_lock(ID) as again:
        assert again


class PageReader:
    """A scorer that reads the breadcrumb page while it runs."""

    def __init__(self, page: int, fails: bool) -> None:
        self._page = page
        self._fails = fails
        self.seen: list[str] = []

    def run(self, matrix: np.ndarray) -> np.ndarray:
        """Read the page and return *matrix*."""
        self.seen = read_running_versions(self._page)
        if self._fails:
            raise ArithmeticError
        return matrix


@pytest.mark.parametrize("fails", [False, True])
def test_breadcrumb_page_names_a_version_only_while_it_runs(fails: bool) -> None:
    """One of two versions runs; after it the page is empty, and a released cell is used again."""
    descriptor = create_breadcrumb_page()
    page = BreadcrumbPage(os.dup(descriptor))
    reader = PageReader(descriptor, fails)
    page.wrap_scorer("cd" * 32, reader)
    scorer = page.wrap_scorer(ID, reader)
    for _ in range(3):
        try:
            scorer.run(np.zeros((1, 1), dtype=np.float32))
        except ArithmeticError:
            assert fails
        assert reader.seen == [ID]
        assert read_running_versions(descriptor) == []
    page.release_cell(ID)
    again = page.wrap_scorer("ef" * 32, reader)
    try:
        again.run(np.zeros((1, 1), dtype=np.float32))
    except ArithmeticError:
        assert fails
    assert reader.seen == ["ef" * 32]
    os.close(descriptor)


def test_suspects_quarantine_a_version_once_at_its_second_crash() -> None:
    """The second crash quarantines it, with its cause and the time of the first crash."""
    suspects = Suspects()
    assert suspects.record_crash("SIGSEGV", [ID, "cd" * 32], 10) == []
    assert suspects.record_crash("SIGFPE", [], 15) == []
    assert suspects.record_crash("SIGABRT", [ID], 20) == [ID]
    assert suspects.quarantined == {
        ID: ("2 workers died while they ran it, the last by SIGABRT", 10)
    }
    assert suspects.record_crash("SIGSEGV", [ID], 30) == []


@pytest.mark.parametrize(
    ("code", "cause", "opened", "copy_pending", "expected"),
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
def test_classify_end_blames_a_version_only_for_its_own_crashes(
    code: int, cause: str, opened: bool, copy_pending: bool, expected: tuple[str, bool]
) -> None:
    """It is not blamed for SIGKILL from outside, a stopped process, or a death between runs."""
    end = classify_end(code, cause, opened=opened, copy_pending=copy_pending)
    assert (end.cause, end.blamed) == expected


def test_shadow_protocol_decodes_copies_and_answers_byte_by_byte() -> None:
    """Answers are complete and in order, from single bytes and from two answers at once."""
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    offsets = np.array([0, 1, 4], dtype=np.uint32)
    frame = encode_copy(matrix, offsets)
    header, body = frame[: FRAME_HEADER.size], frame[FRAME_HEADER.size :]
    assert len(body) == copy_body_size(header, 3)
    decoded_matrix, decoded_offsets = decode_copy(header, body, 3)
    assert np.array_equal(decoded_matrix, matrix)
    assert np.array_equal(decoded_offsets, offsets)
    scores = np.array([[1], [2], [np.nan], [4]], dtype=np.float32)
    answer = encode_scores(Scored(scores, np.array([0, 2], dtype=np.uint8)))
    decoder = ScoresDecoder(1)
    answers: list[Scored] = []
    for byte in OPENED_FRAME + answer + answer:
        due = [(0, 0), (2, 4), (2, 4)][len(answers) :]
        answers += decoder.feed(bytes([byte]), due)
    assert len(answers) == 3
    for scored in answers[1:]:
        assert np.array_equal(scored.scores, scores, equal_nan=True)
        assert scored.faults.tolist() == [0, 2]
    assert len(ScoresDecoder(1).feed(answer + answer, [(2, 4), (2, 4)])) == 2


@pytest.mark.parametrize("calls", range(1, 9))
def test_scores_of_a_shadow_are_aligned_for_the_native_server(calls: int) -> None:
    """They lie behind one byte a call, and the native server takes aligned arrays only."""
    scores = np.arange(calls, dtype=np.float32)[:, None]
    answer = encode_scores(Scored(scores, np.zeros(calls, dtype=np.uint8)))
    (scored,) = ScoresDecoder(1).feed(answer, [(calls, calls)])
    assert scored.scores.flags.aligned
    assert np.array_equal(scored.scores, scores)


@pytest.mark.parametrize("due", [[], [(1, 4)], [(2, 5)]])
def test_scores_decoder_refuses_an_answer_that_is_not_due(due: list[tuple[int, int]]) -> None:
    """An answer without a copy is refused, and so is one with other numbers of calls or rows."""
    answer = encode_scores(Scored(np.zeros((4, 1), dtype=np.float32), np.zeros(2, dtype=np.uint8)))
    with pytest.raises(ShadowProtocolError, match="due"):
        ScoresDecoder(1).feed(answer, due)


def test_model_executor_finishes_runs_after_it_is_closed() -> None:
    """A rollback may close it during a batch; runs started before and after still return."""
    hung = HungScorer()
    matrix, offsets = np.zeros((2, 3), dtype=np.float32), np.array([0, 2], dtype=np.uint32)

    async def walk() -> list[Scored]:
        executor = ModelExecutor(hung, 1)
        before = [executor.start_run(matrix, offsets) for _ in range(3)]
        executor.close()
        after = executor.start_run(matrix, offsets)
        hung.released.set()
        executor.close()
        return [await run.wait() for run in [*before, after]]

    assert [scored.faultless for scored in asyncio.run(walk())] == [True] * 4
