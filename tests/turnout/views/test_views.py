"""What commands print: JSON values and tables."""

import io
import json
import math
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from protos import registry_pb2, rollout_pb2
from turnout.views.cards import change_summary, flatten_card, shift_digest
from turnout.views.golden_evidence import golden_evidence
from turnout.views.json_values import json_text, message_to_json
from turnout.views.proposals import (
    champion_text,
    decay_text,
    interval,
    proposal_json,
    proposal_lines,
    step_after_approval,
)
from turnout.views.reviews import finding_sentence
from turnout.views.rollout_view import four_times, status_view
from turnout.views.runs import differences
from turnout.views.terminal import EscapingConsole, Terminal, named_values, text_table


def rendered(shown: RenderableType) -> str:
    """Return *shown* as text for a wide terminal."""
    page = Console(file=io.StringIO(), width=200)
    page.print(shown)
    assert isinstance(page.file, io.StringIO)
    return page.file.getvalue()


def test_message_to_json_keeps_numbers_enums_bytes_and_maps_readable() -> None:
    """64-bit integers stay numbers, enums are names, bytes are hex; unset fields are there."""
    deployment = registry_pb2.Deployment(revision=2**60, split_salt=b"\x01\xff")
    deployment.digests["1"] = "ab"
    deployment.shadows.add(version="3", sample_bp=100)
    value = json.loads(json.dumps(message_to_json(deployment)))

    assert value["revision"] == 2**60
    assert value["split_salt"] == "01ff"
    assert value["digests"] == {"1": "ab"}
    assert value["shadows"] == [{"version": "3", "sample_bp": 100}]
    assert value["production"] == ""
    version = message_to_json(registry_pb2.Version(status=registry_pb2.STAGING))
    assert version["status"] == "STAGING"


def test_status_view_shows_stage_verdict_evidence_and_times() -> None:
    """A status after a rollback, before its traffic has moved."""
    status = rollout_pb2.RolloutStatus(
        model="churn", version="3", baseline="2", stage=rollout_pb2.ROLLED_BACK,
        verdict=rollout_pb2.FAULTY, reason="5 of 41 keys failed",
    )  # fmt: skip
    status.evidence.add(
        metric="errors", canary_keys=41, canary_events=5, log_e_max=9.5, log_threshold=6.2
    )
    status.times.first_bad_unix_ns = 10**18
    status.times.verdict_unix_ns = 10**18 + 1_200_000_000
    shown = rendered(status_view(status))

    for text in ("rolled back", "FAULTY", "5 of 41 keys failed", "5/41", "9.5 of 6.2"):
        assert text in shown
    assert dict(four_times(status.times)) == {
        "first bad answer": "0 ms",
        "verdict": "+1,200 ms",
        "traffic moved": "not yet",
        "last bad answer": "not yet",
    }


def test_times_of_a_rollback_by_hand_count_from_the_verdict() -> None:
    """There was no bad answer, so nothing is counted from 1970."""
    times = rollout_pb2.RollbackTimes(verdict_unix_ns=10**18, moved_unix_ns=10**18 + 40_000_000)
    assert dict(four_times(times)) == {
        "first bad answer": "none",
        "verdict": "+0 ms",
        "traffic moved": "+40 ms",
        "last bad answer": "none",
    }


def test_json_has_texts_for_numbers_that_json_does_not_have() -> None:
    """A strict parser reads it, and nothing is lost."""
    value = {"a": [math.inf, -math.inf, {"b": math.nan}], "c": 1.5, "d": (2, "Infinity")}

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(json_text(value, indent=1), parse_constant=refuse) == {
        "a": ["Infinity", "-Infinity", {"b": "NaN"}],
        "c": 1.5,
        "d": [2, "Infinity"],
    }


def test_text_table_never_reads_a_cell_as_markup() -> None:
    """Text in brackets is shown as it was written."""
    assert "[red]x[/red]" in rendered(text_table(("why",), [("[red]x[/red]",)]))


def test_terminal_with_json_prints_one_value_to_stdout() -> None:
    """Hints and errors go to stderr, and tables are left out."""
    stdout, stderr = Console(file=io.StringIO()), Console(file=io.StringIO())
    screen = Terminal(True, stdout, stderr)
    screen.result({"a": 1}, "a table")
    screen.hint("do this next")
    screen.error("something")

    assert isinstance(stdout.file, io.StringIO)
    assert json.loads(stdout.file.getvalue()) == {"a": 1}


def test_flatten_card_shows_intervals_and_leaves_out_tables() -> None:
    """An interval stands beside its value; `-` stands for a missing value."""
    card = {
        "auc": {"value": 0.84512, "low": 0.8, "high": 0.9},
        "recall": {"value": None, "low": None, "high": None},
        "shift": {"psi": 0.12345, "bins": [[1, 2, 3]]},
    }
    expected = [("auc", "0.845 [0.800, 0.900]"), ("recall", "-"), ("shift.psi", "0.1235")]
    assert flatten_card(card) == expected
    assert shift_digest({"expected_shift": {"digest": "ab"}}) == "ab"
    assert shift_digest({}) == ""


def test_terminal_shows_control_characters_instead_of_obeying_them() -> None:
    """Tables, text and JSON: nothing that others wrote reaches the terminal as a control."""
    reason = "\x1b[31mforged\x9b0m\u202e\nline2"
    screen = EscapingConsole(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    terminal = Terminal(False, screen, screen)
    terminal.result(
        None,
        text_table(("reason",), [(reason,)]),
        named_values({"reason": reason}),
        Text(reason),
        reason,
    )
    terminal.error(reason)
    terminal.note(reason)
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert not [character for character in "\x1b\x9b\u202e" if character in shown]
    assert shown.count(r"\x1b[31mforged\x9b0m\u202e") == 6
    assert shown.count(r"\u202e\x0aline2") == 2


def test_json_output_has_escapes_for_control_characters() -> None:
    """It stays the same JSON value."""
    value = {"reason": "\x1b[31m\x9b\x7f\u202e\n ü"}
    screen = EscapingConsole(file=io.StringIO())
    Terminal(True, screen, screen).result(value)
    Terminal(True, screen, screen).line(value)
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert not [character for character in "\x1b\x9b\x7f\u202e" if character in shown]
    assert json.loads(shown.splitlines()[-1]) == value


def test_change_summary_has_what_an_approver_accepts() -> None:
    """Data, gate and each group that is not within the band, with rows without a value."""

    def group(value: str | None, verdict: str, ratio: float) -> dict[str, Any]:
        return {
            "value": value,
            "counts": {"member": {"rows": 417}},
            "selection_rate_ratio": {"value": ratio, "low": ratio - 0.1, "high": ratio + 0.1},
            "tpr_gap": None,
            "verdict": verdict,
        }

    groups = [
        group("north", "within band", 1.0),
        group("south", "outside band", 0.5),
        group(None, "undecided", 0.8),
    ]
    card = {
        "data": {"rows": 7_043, "positives": 1_869},
        "gate": [{"name": "auc", "passed": True, "text": "AUC 0.8580; at least 0.7"}],
        "fairness": {"profile:region": {"verdict": "outside band", "groups": groups}},
    }
    shown = rendered(change_summary(card))
    assert "data: positives" in shown
    assert "passed: AUC 0.8580; at least 0.7" in shown
    assert "outside band (groups: 1 outside band, 1 undecided, 1 within band)" in shown
    assert "= south" in shown
    assert "outside band, 417 rows, selection rate ratio 0.500 [0.400, 0.600]" in shown
    assert "= unknown" in shown
    assert "= north" not in shown


@pytest.mark.parametrize("written", ["all", ["x"], {"x": None}, {"x": {"groups": ["y", None]}}, 7])
def test_change_summary_breaks_on_no_card(written: object) -> None:
    """The author of a card that training did not make may have written anything."""
    sections = ("data", "gate", "fairness", "metrics", "expected_shift", "drill", "joined")
    assert rendered(change_summary(dict.fromkeys(sections, written)))
    estimate = {"value": "high", "low": None, "high": []}
    assert "auc" in rendered(change_summary({"metrics": {"auc": estimate}}))


def test_change_summary_shows_the_fairness_of_older_cards() -> None:
    """They compare the value 1 with all others, and have no groups."""
    older = {"selection_rate_ratio": {"value": 2.2, "low": 1.9, "high": 2.5}}
    shown = rendered(
        change_summary({"fairness": {"p:senior": {**older, "verdict": "outside band"}}})
    )
    assert "outside band" in shown


def test_change_summary_says_what_proves_a_version() -> None:
    """Golden rows by the file itself, by the original, and a certificate read differently."""
    alone = rendered(change_summary({}))
    assert "scored by this very file; nothing proves that it equals the model it was" in alone
    assert "none: this file was not compared" in alone
    assert "none: this version was not measured" in alone
    parity = {"passed": True, "difference_max": 3e-7, "held_out_rows": 100, "edge_rows": 20}
    trained = rendered(change_summary({"parity": parity, "metrics": {"auc": 0.5}}))
    assert "the parity certificate is the proof" in trained
    assert "120 rows compared with the original; the largest difference is 3e-07" in trained
    assert "none:" not in trained
    card = {
        "golden": {"scored_by": "lightgbm 4.6.0"},
        "adopted": {"origin": "LightGBM model in churn.txt"},
        "data": {"sample": "500 rows of rows.csv"},
        "metrics": {"auc": 0.7},
        "metrics_note": "measured on sample rows",
    }
    adopted = rendered(change_summary(card))
    for said in ("scored by lightgbm 4.6.0, the original", "LightGBM model in churn.txt"):
        assert said in adopted
    assert "500 rows of rows.csv" in adopted
    assert "measured on sample rows" in adopted
    # A card's author may have written anything.
    for written in ({"parity": "yes", "golden": 3}, {"parity": {"passed": 1}, "golden": []}):
        assert "nothing proves" in rendered(change_summary(written))
        assert golden_evidence(written)["parity"] is False


def test_change_summary_says_what_training_joined() -> None:
    """An approver sees the shares of each view; a card with other values breaks nothing."""
    shares = {"missing": 0.0125, "stale": 0.0, "defaulted": 0.5}
    shown = rendered(change_summary({"joined": {"usage": shares}}))
    assert "joined: usage" in shown
    assert "missing 1.2%, stale 0.0%, defaulted 50.0%" in shown
    for written in ("all", ["usage"], {"usage": None}, {"usage": {"missing": "none"}}):
        assert "%" not in rendered(change_summary({"joined": written}))


def test_proposal_has_its_evidence_and_the_next_step() -> None:
    """A card's author and an older trainer may have left anything out."""
    estimate = {"value": 0.036, "low": 0.024, "high": 0.048}
    judged = {
        "metric": "auc",
        "rows": 900,
        "now": {"value": 0.8, "low": 0.78, "high": 0.82},
        "registered": {"value": 0.85, "low": 0.84, "high": 0.86},
        "change": {"value": -0.05, "low": -0.07, "high": -0.03},
        "verdict": "decayed",
    }
    run = registry_pb2.Run(
        id="ab" * 16,
        model="churn",
        version="8",
        cause="schedule weekly",
        state=registry_pb2.Run.REGISTERED,
        inputs_json=b'{"champion": "cdef"}',
        result_json=json.dumps({"auc_gain": estimate, "champion": judged}).encode(),
    )
    # What scripts get, and what people see.
    value = proposal_json(run)
    assert (value["trigger"], value["gain"], value["decay"]) == (
        "schedule weekly",
        estimate,
        judged,
    )
    assert value["next_step"] == "turnout versions approve churn 8"
    lines = proposal_lines(run)
    assert lines["gain over the champion"] == "+0.0360 [+0.0240, +0.0480]"
    assert str(lines["champion on the newest labels"]).endswith(
        "-0.0500 [-0.0700, -0.0300], decayed"
    )
    assert decay_text(judged) == "-0.0500 [-0.0700, -0.0300], decayed"
    # Nothing is known of the first version of a model.
    first = proposal_json(
        registry_pb2.Run(model="churn", version="1", state=registry_pb2.Run.REGISTERED)
    )
    assert (first["champion"], first["gain"], first["decay"]) == (None, None, None)
    assert first["next_step"] == "turnout versions approve churn 1 --policy initial"
    assert decay_text(None) == interval({"value": "high"}) == "-"
    assert champion_text({"unknown": "no labels"}) == "not known: no labels"


def test_differences_are_shown_with_as_few_digits_as_it_takes() -> None:
    """Two numbers that differ never look equal."""
    first, second = {"auc": 0.8123456789, "rows": 3}, {"auc": 0.8123456788, "rows": 3.0}
    assert differences(first, second) == [("auc", "0.8123456789", "0.8123456788")]
    assert differences({"auc": 0.5}, {"auc": 0.25, "new": [True]}) == [
        ("auc", "0.5", "0.25"),
        ("new.0", "-", "True"),
    ]


def test_step_after_an_approval_works_as_it_stands() -> None:
    """A version becomes production after the gateways have loaded it, which stages it."""
    approval = registry_pb2.Approval(version="1", direct=True)
    assert step_after_approval("toy", approval, "initial") == (
        "turnout splits preload toy 1 && turnout splits set toy --production 1"
    )
    stepwise = registry_pb2.Approval(version="2")
    assert step_after_approval("toy", stepwise, "standard") == (
        "turnout rollout start toy 2 --policy standard"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '{"first_day":20758,"last_day":20771,"reason":"quiet weeks"}',
            "2026-11-01 to 2026-11-14 are the reference: quiet weeks",
        ),
        (
            '{"decision":"train again","due":"2026-12-07","owner":"dora"}',
            "train again (dora, until 2026-12-07)",
        ),
        ('{"done":12,"reason":"it was late"}', "decision 12 is done: it was late"),
        (
            '{"uplift":0.0214,"customers":500,"outcome":"bought","money":null}',
            "uplift of bought: 0.0214, 500 customers",
        ),
        ('{"uplift":null,"customers":5,"outcome":"bought"}', "uplift of bought: not measured, 5"),
        ('{"content":"ab","newest_unix_ms":1796050000500,"rows":40}', "40 rows of scores were"),
        ('{"finding":9,"act":"none","why":"not served"}', "finding 9 led to none: not served"),
        ('{"view_digest":"ab","rows":3}', "view digest ab, rows 3"),
        ("incident 5f2a (auc): it fell", "incident 5f2a (auc): it fell"),
        ("[1", "[1"),
        ("12", "12"),
    ],
)
def test_finding_is_a_sentence_for_people(text: str, sentence: str) -> None:
    """The history keeps JSON, which programs read."""
    assert finding_sentence(text).startswith(sentence)
