"""Tests of delivery: at least once, in the newest state, and past receivers that do not answer."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from project.notice_targets import NoticeTarget
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import GateError, RegistryUnavailableError
from tests.registry.registry_fixture import RegistryFixture, registry_fixture
from tests.rollout.live_rollout import unused_port
from tests.turnout.notices.receiver import NoticeReceiver, notice_receiver
from turnout.notices import delivery
from turnout.notices.delivery import Positions, TargetDelivery
from turnout.notices.messages import notice_of
from turnout.notices.post import NoticeError, post_notice

pytestmark = pytest.mark.walk

Change = pb.ChangeIncidentRequest


@asynccontextmanager
async def delivering(
    registry: RegistryFixture, url: str, file: Path, *, severity: str = "review", name: str = "ops"
) -> AsyncIterator[None]:
    """Deliver to one target while the block runs."""
    target = NoticeTarget(name=name, url=url, severity=severity)
    async with registry.client("control") as client:
        work = TargetDelivery(target, client, Positions(file), group_s=0.05, post_s=1.0).run()
        task = asyncio.ensure_future(work)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def open_one(
    client: RegistryClient, cause: str, severity: "pb.Incident.Severity" = pb.Incident.PAGE
) -> pb.Incident:
    """Open an incident by hand, of a model that is added with the first one."""
    with suppress(GateError):
        await client.add_outside_model("churn", owner="crm", purpose="calls", place="mainframe")
    reply = await client.open_incident(
        "churn", "manual", cause, severity=severity, title=f"{cause} is wrong"
    )
    return reply.incident


async def close(client: RegistryClient, incident: pb.Incident) -> None:
    """Close an incident as real."""
    request = Change(
        id=incident.id,
        revision=incident.revision,
        change=Change.CLOSE,
        resolution=pb.Incident.REAL,
        text="mended",
    )
    await client.change_incident(request)


def kinds(receiver: NoticeReceiver) -> list[tuple[str, str]]:
    """Return the type and the title of what came."""
    return [(item.value["type"], item.value["data"]["title"]) for item in receiver.received]


def test_each_change_is_delivered_once_while_all_is_well(tmp_path: Path) -> None:
    """A new target hears of what is open; after a restart it goes on from its position."""

    async def course() -> None:
        file = tmp_path / "notices.json"
        async with registry_fixture(tmp_path / "r") as registry, notice_receiver() as receiver:
            await close(registry.cleo, await open_one(registry.cleo, "old"))
            one = await open_one(registry.cleo, "one")
            async with delivering(registry, receiver.url, file):
                await receiver.wait_for(1)
                await close(registry.cleo, one)
                await receiver.wait_for(2)
            assert kinds(receiver) == [
                ("incident.opened", "one is wrong"),
                ("incident.closed", "one is wrong"),
            ]
            async with delivering(registry, receiver.url, file):
                await open_one(registry.cleo, "two")
                # The position of the last notice may not have been written before the end.
                while kinds(receiver)[-1] != ("incident.opened", "two is wrong"):
                    await receiver.wait_for(len(receiver.received) + 1)
            assert len(receiver.received) in (3, 4)
            assert len({item.headers["webhook-id"] for item in receiver.received}) == 3

    asyncio.run(course())


def test_receiver_that_fails_gets_the_newest_state_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors are tried again, with the same id; changes that wait are one notice."""
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_S", 0.2)

    async def course() -> None:
        async with registry_fixture(tmp_path / "r") as registry, notice_receiver() as receiver:
            receiver.answers = ["503", "429", "500"]
            incident = await open_one(registry.cleo, "one")
            async with delivering(registry, receiver.url, tmp_path / "n"):
                first, second = (await receiver.wait_for(2))[:2]
                assert first.headers["webhook-id"] == second.headers["webhook-id"]
                await close(registry.cleo, incident)
                await receiver.wait_for(4)
            assert kinds(receiver)[-1] == ("incident.closed", "one is wrong")

    asyncio.run(course())


def test_notice_that_is_refused_for_ever_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries it is left out, and the log says so."""
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_S", 0.01)

    async def course() -> None:
        async with registry_fixture(tmp_path / "r") as registry, notice_receiver() as receiver:
            receiver.answers = ["400"] * delivery.REFUSALS_MAX
            await open_one(registry.cleo, "one")
            await open_one(registry.cleo, "two")
            async with delivering(registry, receiver.url, tmp_path / "n"):
                await receiver.wait_for(delivery.REFUSALS_MAX + 1)
            titles = [title for _, title in kinds(receiver)]
            refused = ["one is wrong"] * delivery.REFUSALS_MAX
            assert titles == [*refused, "two is wrong"]

    asyncio.run(course())


def test_incident_below_the_severity_of_a_target_is_not_sent(tmp_path: Path) -> None:
    """Once it is raised, it is."""

    async def course() -> None:
        async with registry_fixture(tmp_path / "r") as registry, notice_receiver() as receiver:
            async with delivering(registry, receiver.url, tmp_path / "n", severity="page"):
                await open_one(registry.cleo, "one", pb.Incident.REVIEW)
                await open_one(registry.cleo, "two")
                await receiver.wait_for(1)
                await open_one(registry.cleo, "one")
                await receiver.wait_for(2)
            assert [title for _, title in kinds(receiver)] == ["two is wrong", "one is wrong"]

    asyncio.run(course())


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_slow_receiver_costs_one_timeout(tmp_path: Path, how: str) -> None:
    """Whether nothing comes or a byte at a time; and another target is not delayed."""

    async def course() -> None:
        async with (
            registry_fixture(tmp_path / "r") as registry,
            notice_receiver() as slow,
            notice_receiver() as good,
        ):
            slow.answers = [how] * 100
            target = NoticeTarget(name="slow", url=slow.url)
            notice = notice_of(target, pb.Incident(severity=pb.Incident.PAGE), 0.0)
            with pytest.raises(NoticeError, match="did not answer within"):
                async with asyncio.timeout(10):
                    await post_notice(notice, 0.3)
            file = tmp_path / "n"
            async with (
                delivering(registry, slow.url, file, name="slow"),
                delivering(registry, good.url, tmp_path / "m"),
            ):
                await slow.wait_for(1)
                await open_one(registry.cleo, "one")
                await good.wait_for(1, seconds=5)

    asyncio.run(course())


def test_killed_control_sends_at_least_once(tmp_path: Path) -> None:
    """Killed between the sending and the answer, it sends the same notice again after its start."""
    project = tmp_path / "shop"
    (project / "environments").mkdir(parents=True)
    (project / "turnout.toml").write_text(
        '[project]\nname = "shop"\nformat = 1\nowner = "network-ds"\n'
    )
    (project / "secret").write_text("s3cret\n")

    async def course() -> None:
        port = unused_port()
        async with notice_receiver() as receiver:
            (project / "environments" / "dev.toml").write_text(
                f'[notices.ops]\nurl = "{receiver.url}"\nsecret = "${{file:secret}}"\n'
            )
            receiver.answers = ["hang"]
            # The first control process is killed while the receiver has the notice.
            control = start_control(tmp_path, port)
            try:
                certificate = tmp_path / "registry" / "keys" / "control.crt"
                await wait_for_file(certificate)
                address = f"127.0.0.1:{port}"
                async with RegistryClient(address, "cleo", certificate=certificate) as client:
                    await open_when_up(client)
                (first,) = await receiver.wait_for(1)
            finally:
                control.kill()
                control.wait()
            # The second one finds the notice in the history, and sends it again.
            again = start_control(tmp_path, port)
            try:
                second = (await receiver.wait_for(2, seconds=60))[1]
            finally:
                again.kill()
                again.wait()
            assert second.headers["webhook-id"] == first.headers["webhook-id"]
            assert second.body.count(b"one is wrong") == 1
            assert second.headers["webhook-signature"].startswith("v1,")

    asyncio.run(asyncio.wait_for(course(), 120))


def start_control(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a control process whose environment has a target of notices."""
    environment = folder / "shop" / "environments" / "dev.toml"
    command = [sys.executable, "-m", "turnout.control", "--listen", f"127.0.0.1:{port}"]
    command += ["--folder", str(folder / "registry"), "--notices", str(environment)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


async def wait_for_file(path: Path) -> None:
    """Return when a process has written a file."""
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110, ASYNC240  another process writes it
            await asyncio.sleep(0.05)


async def open_when_up(client: RegistryClient) -> None:
    """Open an incident as soon as the registry answers."""
    async with asyncio.timeout(30):
        while True:
            with suppress(RegistryUnavailableError):
                await open_one(client, "one")
                return
            await asyncio.sleep(0.05)
