"""Tests of the gateways' clocks: one that is ahead of all others is refused."""

from rollout.controller.gateway_clocks import CLOCK_AHEAD_S_MAX, CLOCK_WRONG_S_MAX, GatewayClocks
from rollout.evidence.inbox import NS

UNIX_NS = 1_800_000_000 * NS


class Sender:
    """Sends batches of gateways to one controller whose monotonic clock is *now_s*."""

    def __init__(self, controller_ahead_s: float = 0.0) -> None:
        self.clocks = GatewayClocks()
        self.now_s = 100.0
        self.controller_ahead_s = controller_ahead_s

    def refusal(self, gateway: str, ahead_s: float = 0.0) -> str:
        """Return why a batch of *gateway* is refused whose clock is so far ahead."""
        now_ns = int(self.now_s * NS)
        unix_ns = UNIX_NS + now_ns
        return self.clocks.refusal(
            gateway,
            unix_ns + int(ahead_s * NS),
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
