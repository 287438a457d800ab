"""docs/incidents.md is executed: policies and targets are read, the receiver verifies a notice."""

import re
import tomllib
from collections.abc import Callable
from typing import Any, cast

from project.notice_targets import NoticeTarget, read_notice_targets
from protos import registry_pb2 as pb
from registry.watching.policy import ACTS, DEFAULT_ACTS, KINDS
from registry.watching.policy_reader import read_monitoring_policy
from tests.house.sources import REPOSITORY
from turnout.notices.messages import notice_of

PAGE = (REPOSITORY / "docs" / "incidents.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_policy_and_targets_are_read_as_they_stand() -> None:
    """What the page shows can be copied."""
    policy, targets = (tomllib.loads(block) for block in blocks("toml"))
    read = read_monitoring_policy(policy["monitoring"])
    assert (read.keeps_all_decisions, read.act_on("auc")) == (True, "retrain")
    found = read_notice_targets(targets["notices"], "environments/prod.toml")
    assert [target.format for target in found] == ["webhook", "alertmanager"]


def test_page_has_every_kind_with_its_default_and_every_act() -> None:
    """The tables of the page are those of the code."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .* \| (\w+) \|$", PAGE, re.MULTILINE)
    shown = {kind.strip("` "): act for kinds, act in rows for kind in kinds.split(",")}
    assert shown == dict(DEFAULT_ACTS)
    assert shown.keys() == KINDS.keys()
    assert all(f"| `{act}` |" in PAGE for act in ACTS)


def test_receiver_of_the_page_verifies_a_notice() -> None:
    """An altered body, another secret and an old notice are refused."""
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(code, names)
    is_genuine = cast("Callable[[str, dict[str, str], bytes, float], bool]", names["is_genuine"])
    target = NoticeTarget(name="ops", url="http://127.0.0.1:1/", secret="s3cret")
    incident = pb.Incident(id="5f2a91c0", severity=pb.Incident.PAGE, sequence=3)
    notice = notice_of(target, incident, 1_796_050_000.0)
    assert is_genuine("s3cret", notice.headers, notice.body, 1_796_050_100.0)
    assert not is_genuine("other", notice.headers, notice.body, 1_796_050_100.0)
    assert not is_genuine("s3cret", notice.headers, notice.body + b" ", 1_796_050_100.0)
    assert not is_genuine("s3cret", notice.headers, notice.body, 1_796_050_301.0)
