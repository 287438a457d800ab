"""Tests of the gateways' clocks: one that is ahead of most others, or behind them, is refused."""

import pytest

from rollout.controller.gateway_clocks import (
    BEHIND_S_MAX,
    CLOCK_AHEAD_S_MAX,
    CLOCK_BEHIND_S_MAX,
    CLOCK_WRONG_S_MAX,
    ClockCheck,
    GatewayClocks,
)
from rollout.evidence.inbox import NS

UNIX_NS = 1_800_000_000 * NS


class Sender:
    """Sends batches of gateways to one controller whose monotonic clock is *now_s*."""

    def __init__(self, controller_ahead_s: float = 0.0) -> None:
        self.clocks = GatewayClocks()
        self.now_s = 100.0
        self.controller_ahead_s = controller_ahead_s

    def refusal(self, gateway: str, ahead_s: float = 0.0) -> str:
        """Return why an older gateway's batch is refused that was made so far in the future."""
        return self._check(gateway, ahead_s, None).why

    def check(self, gateway: str, ahead_s: float = 0.0, old_s: float = 0.0) -> ClockCheck:
        """Return what a batch says that was made *old_s* before it was sent."""
        return self._check(gateway, ahead_s - old_s, ahead_s)

    def _check(self, gateway: str, sent_s: float, clock_s: float | None) -> ClockCheck:
        now_ns = int(self.now_s * NS)
        unix_ns = UNIX_NS + now_ns
        return self.clocks.check(
            gateway,
            unix_ns + int(sent_s * NS),
            0 if clock_s is None else unix_ns + int(clock_s * NS),
            unix_ns + int(self.controller_ahead_s * NS),
            now_ns,
        )


def test_clock_that_is_ahead_of_others_that_agree_is_refused() -> None:
    """The others go on, and the gateway is let in when its clock is right."""
    sender = Sender()
    assert sender.refusal("a") == ""
    assert sender.refusal("bad", CLOCK_AHEAD_S_MAX - 1) == ""
    assert "11 s ahead of those of the controller and of 1 other" in sender.refusal(
        "bad", CLOCK_AHEAD_S_MAX + 1
    )
    assert sender.refusal("a") == ""
    assert sender.refusal("bad") == ""


def test_clock_of_a_controller_that_is_wrong_refuses_nobody() -> None:
    """With one gateway, or two that disagree with the controller, nobody is refused."""
    for ahead_s in (-3_600, 3_600):
        sender = Sender(controller_ahead_s=ahead_s)
        assert sender.refusal("a") == ""
        assert sender.refusal("b") == ""
        assert sender.refusal("a") == ""


def test_clock_of_a_single_gateway_may_be_a_day_ahead_at_most() -> None:
    """There is nobody else to ask."""
    sender = Sender()
    assert sender.refusal("a", CLOCK_WRONG_S_MAX - 1) == ""
    assert "ahead of the controller's" in sender.refusal("a", CLOCK_WRONG_S_MAX + 1)
    assert sender.refusal("a", 2**62 / NS) != ""


def test_batches_that_are_sent_again_after_an_outage_are_no_wrong_clock() -> None:
    """They are an hour old, and neither their gateway nor the others are refused."""
    sender = Sender()
    assert sender.refusal("a") == ""
    assert sender.refusal("b", -3_600) == ""
    assert sender.refusal("a") == ""
    assert sender.refusal("b") == ""
    assert "ahead" in sender.refusal("b", 3_600)


def test_clock_of_a_gateway_is_that_of_its_quickest_batch_of_a_minute() -> None:
    """After it, a clock that was set back is taken as it is."""
    sender = Sender()
    assert sender.refusal("a", 9) == ""
    assert sender.refusal("a", -100) == ""
    sender.now_s += 61
    assert sender.refusal("a", -100) == ""
    # Controller and `a` disagree now, so nobody can say that `b` is wrong.
    assert sender.refusal("b", 50) == ""


@pytest.mark.parametrize("ahead_s", [-3_600, -CLOCK_BEHIND_S_MAX - 1, CLOCK_AHEAD_S_MAX + 1, 3_600])
def test_wrong_clock_beside_a_right_one_is_refused_until_it_is_set(ahead_s: float) -> None:
    """Its gateway was never right, so its first batch after the other's says enough."""
    sender = Sender()
    assert sender.check("a") == ClockCheck()
    refused = sender.check("bad", ahead_s)
    word = "behind" if ahead_s < 0 else "ahead of"
    assert f"is {abs(ahead_s):.0f} s {word} those of the controller and of 1 other" in refused.why
    assert not refused.trusted
    assert sender.check("a") == ClockCheck()
    assert sender.check("bad") == ClockCheck()


def test_two_gateways_with_clocks_behind_are_refused_by_three_others() -> None:
    """They do not agree with the majority, though they agree with each other."""
    sender = Sender()
    for gateway in ("bad", "worse", "a", "b"):
        sender.check(gateway, -3_600 if gateway in ("bad", "worse") else 0)
    for gateway in ("bad", "worse"):
        assert "behind" in sender.check(gateway, -3_600).why
    assert sender.check("a") == sender.check("b") == ClockCheck()


def test_nobody_is_refused_where_half_of_the_clocks_say_otherwise() -> None:
    """Two of four clocks are no majority: nobody can say who is wrong."""
    sender = Sender()
    for _ in range(2):
        for gateway, ahead_s in (("b", -3_600), ("c", -3_600), ("a", 0)):
            assert sender.check(gateway, ahead_s) == ClockCheck()


def test_old_batches_of_a_right_clock_are_no_clock_behind() -> None:
    """After an outage a gateway sends batches of an hour, and says the right time with each."""
    sender = Sender()
    assert sender.check("a") == ClockCheck()
    assert sender.check("b", old_s=3_600) == ClockCheck()


def test_clock_that_was_right_may_come_late_for_some_seconds() -> None:
    """The controller stood still, or the clock was set back. It closes no seconds meanwhile."""
    sender = Sender()
    assert sender.check("a") == sender.check("b") == ClockCheck()
    assert sender.check("b", -3_600) == ClockCheck(trusted=False)
    sender.now_s += BEHIND_S_MAX - 1
    assert sender.check("b", -20) == ClockCheck(trusted=False)
    assert sender.check("b") == ClockCheck()
    # It stays behind.
    assert sender.check("b", -20) == ClockCheck(trusted=False)
    sender.now_s += BEHIND_S_MAX
    assert sender.check("a") == ClockCheck()
    assert "20 s behind" in sender.check("b", -20).why


def test_gateway_that_has_gone_votes_no_more() -> None:
    """Two minutes after its last batch there is nobody but the controller beside the other."""
    sender = Sender()
    assert sender.check("gone") == ClockCheck()
    sender.now_s += 121
    assert sender.check("a", -3_600) == ClockCheck()
