"""Tests of the replay: actions are known, old entries not accused, differences named."""

import ast
import json
from pathlib import Path

import pytest

from features.canonical import sha256_hex
from protos import registry_pb2 as pb
from registry.history.comparison import TableComparison
from registry.history.replay import ACTIONS, ReplayedState, ReplayError

REGISTRY = Path(__file__).parents[3] / "registry"


def texts_in(tree: ast.AST) -> set[str]:
    """Every string constant in a piece of code, without docstrings."""
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    roots = returned or [tree]
    return {
        node.value
        for root in roots
        if root is not None
        for node in ast.walk(root)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def recorded_actions() -> set[str]:
    """Every action that the code of the registry writes into the history."""
    folders = ("rules", "storage", "runs", "incidents")
    files = [path for folder in folders for path in REGISTRY.glob(f"{folder}/*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    actions: set[str] = set()
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    keywords = [word for call in calls for word in call.keywords if word.arg == "action"]
    texts = (ast.Constant, ast.Attribute)
    passed_on = [word.value for word in keywords if isinstance(word.value, texts)]
    for call in calls:
        # `record_run(change, action, ...)` writes the entries of runs.
        if getattr(call.func, "attr", getattr(call.func, "id", "")) == "record_run":
            actions.add(ast.literal_eval(call.args[1]))
        if not isinstance(call.func, ast.Attribute) or call.func.attr != "record":
            continue
        # An action that is a parameter is the text that the function's callers pass on.
        named = call.args[0]
        for action in passed_on if isinstance(named, ast.Name) else [named]:
            # `command.action` is a property; its returns have the texts.
            is_property = isinstance(action, ast.Attribute)
            found = texts_in(functions[action.attr] if is_property else action)
            assert found, f"{ast.unparse(call)[:80]}: write the action as a text, or as a property"
            actions |= found
    return actions


def entry(seq: int, action: str, object_name: str, after: object) -> pb.HistoryEntry:
    """An entry as the registry writes it, without its digests."""
    return pb.HistoryEntry(
        seq=seq, action=action, object=object_name, after=json.dumps(after), actor="ann", reason="r"
    )


def registered(**fields: object) -> pb.HistoryEntry:
    """Entry 1: the first version of churn."""
    after = {"digest": "ab" * 32, "author": "ann", "status": "development", "size_bytes": 7}
    return entry(1, "register", "model/churn/version/1", {**after, **fields})


def test_every_recorded_action_can_be_replayed() -> None:
    """An action that the code writes and no audit knows would be an accusation of the honest."""
    assert recorded_actions() == set(ACTIONS)


def test_replay_refuses_an_unknown_action() -> None:
    """The error says which entry, which action, and what to do."""
    with pytest.raises(ReplayError, match=r"entry 1 has the action 'praise'.*use the version"):
        ReplayedState().apply(entry(1, "praise", "model/churn/version/1", {}))


def test_replay_names_an_entry_whose_contents_do_not_fit() -> None:
    """A status of a version that was never registered."""
    with pytest.raises(ReplayError, match=r"entry 2 .*cannot be replayed"):
        ReplayedState().apply(entry(2, "status", "model/churn/version/9", {"status": "staging"}))


def test_comparison_does_not_accuse_rows_of_an_older_registry() -> None:
    """Its entries lack fields, and the comparison counts them instead."""
    state = ReplayedState()
    state.apply(registered())
    row = {
        "model": "churn", "label": 1, "digest": "ab" * 32, "author": "ann", "size_bytes": 7,
        "status": 1, "standby": 0, "was_production": 0, "outputs": 1, "card_sha256": "cd" * 32,
        "views": "",
    }  # fmt: skip
    comparison = TableComparison(state, "versions")

    assert comparison.differences([row], last=True) == []
    assert comparison.unproven == {"outputs": 1, "card_sha256": 1}
    assert not state.sealed


def test_salt_of_an_older_registry_is_proven_by_its_deployment() -> None:
    """Entries of deployments always had the holdout salt."""
    state = ReplayedState()
    state.apply(registered())
    deployment = {"revision": 1, "holdout_salt": "aa" * 16}
    state.apply(entry(2, "deploy", "model/churn/deployment", deployment))
    right = {"model": "churn", "labels": 1, "holdout_salt_sha256": sha256_hex(b"\xaa" * 16)}
    wrong = {**right, "holdout_salt_sha256": sha256_hex(b"\xbb" * 16)}

    assert TableComparison(state, "models").differences([right], last=True) == []
    (difference,) = TableComparison(state, "models").differences([wrong], last=True)
    assert "row 'churn', field holdout_salt_sha256: the history says" in difference.to_text()


def test_difference_names_table_row_field_and_both_values() -> None:
    """Changed, missing and foreign rows, also when they come in pages."""
    state = ReplayedState()
    for number in (1, 2, 3):
        finding = {"model": "churn", "kind": "hold", "text": "t"}
        state.apply(entry(number, "finding", f"model/churn/finding/{number}", finding))
    rows = [{**finding, "sequence": number} for number in (1, 2, 3)]
    after = '{"kind":"hold","model":"churn","text":"t"}'
    for number in (1, 2, 3):
        state.rows["findings"][number] = (number, sha256_hex(after.encode()))

    comparison = TableComparison(state, "findings")
    assert comparison.differences(rows[:2], last=False) == []
    assert comparison.differences(rows[2:], last=True) == []
    (edited,) = TableComparison(state, "findings").differences(
        [rows[0], {**rows[1], "text": "u"}, rows[2]], last=True
    )
    written = entry(2, "finding", "model/churn/finding/2", finding)
    assert edited.to_text(written) == (
        'table findings, row 2, field text: the history says "t" (entry 2), and the table says "u"'
    )
    (missing,) = TableComparison(state, "findings").differences(rows[:2], last=True)
    assert missing.to_text() == (
        "table findings, row 3 is missing from the table; history entry 3 wrote it"
    )
    (foreign,) = TableComparison(state, "findings").differences(
        [*rows, {**rows[2], "sequence": 4}], last=True
    )
    assert "row 4 is in the table, and no entry of the history wrote it" in foreign.to_text()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_findings_with_any_text_are_compared_whole(count: int) -> None:
    """The text of a page is cut between rows, and no text of a row can look like such a place."""
    nasty = ["},{", '},{"at_unix_ms":1', '"},{"at_unix_ms":', "\\", '\\"},{"at_unix_ms":', "\n\0é"]
    state = ReplayedState()
    rows = []
    for number in range(1, count + 1):
        fields = {"at_unix_ms": number, "kind": nasty[number - 1], "text": nasty[-number]}
        after = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        state.rows["findings"][number] = (number, sha256_hex(after.encode()))
        rows.append({**fields, "sequence": number})

    assert TableComparison(state, "findings").differences(rows, last=True) == []
    for row in rows:
        edited = [{**other, "text": "x"} if other is row else other for other in rows]
        (difference,) = TableComparison(state, "findings").differences(edited, last=True)
        assert difference.key == row["sequence"]


def test_state_is_the_same_after_a_snapshot() -> None:
    """What `from_json` reads is what `to_json` wrote."""
    state = ReplayedState()
    state.apply(registered(card_sha256="cd" * 32, entities=["a"]))
    state.apply(
        entry(2, "status", "model/churn/version/1", {"status": "staging", "standby": False})
    )

    again = ReplayedState.from_json(state.to_json())

    assert again == state
    assert again.sealed
