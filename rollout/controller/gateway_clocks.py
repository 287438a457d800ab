"""The clocks of the gateways: which of them is wrong, so that its windows are not counted.

A clock that is ahead would close the seconds of all rollouts too early, and one that is behind
would keep them open and then call its own windows late. A majority of all clocks, that of the
controller included, decides which clock is wrong. Without a majority, every gateway is let in.

Pure: every instant is an argument. An offset is a clock minus the controller's monotonic clock.
"""

from dataclasses import dataclass
from statistics import median_low

from rollout.evidence.inbox import NS

CLOCK_AHEAD_S_MAX = 10
"""A gateway whose clock is further ahead of the majority than this is refused."""
CLOCK_BEHIND_S_MAX = 5
"""A gateway whose clock is further behind the majority than this is refused."""
BEHIND_S_MAX = 5
"""How long the batches of a gateway whose clock was right may come so late. The network or the
controller may have stood still."""
CLOCK_WRONG_S_MAX = 86_400
"""No clock may be further ahead of the controller's, also not that of a single gateway."""
GATEWAYS_MAX = 1_000
"""Gateways in memory. The one that was heard first is forgotten."""
VOTE_NS = 60 * NS
"""How long the quickest batch of a gateway tells its clock."""


@dataclass(frozen=True, slots=True)
class ClockCheck:
    """What a batch says about the clock of its gateway."""

    why: str = ""
    """Why the gateway's windows are not counted; empty: they are."""
    trusted: bool = True
    """Whether seconds may close by this clock."""


@dataclass(frozen=True, slots=True)
class _Vote:
    offset_ns: int
    heard_ns: int


class GatewayClocks:
    """The clock offset of each gateway, by its quickest batch of the last minute."""

    def __init__(self) -> None:
        self._votes: dict[str, _Vote] = {}
        self._behind_since_ns: dict[str, int] = {}
        """Gateway whose clock was right -> since when its batches have come late."""

    def check(
        self, gateway: str, sent_unix_ns: int, clock_unix_ns: int, unix_ns: int, now_ns: int
    ) -> ClockCheck:
        """Check the clock of *gateway* by one batch, and note it as its vote if it is right.

        sent_unix_ns     when the batch was made, by the gateway's clock.
        clock_unix_ns    when it was sent, by the same clock; 0: an older gateway does not say. Then
                         one that is behind looks like one that sends old batches again.
        unix_ns, now_ns  the controller's wall clock and monotonic clock.
        """
        offset_ns = max(sent_unix_ns, clock_unix_ns) - now_ns
        result = self._check(gateway, offset_ns, clock_unix_ns != 0, unix_ns - now_ns, now_ns)
        if result.why:
            self._votes.pop(gateway, None)
            self._behind_since_ns.pop(gateway, None)
        elif result.trusted:
            self._behind_since_ns.pop(gateway, None)
            self._note_vote(gateway, _Vote(offset_ns, now_ns))
        return result

    def _note_vote(self, gateway: str, vote: _Vote) -> None:
        known = self._votes.get(gateway)
        if (
            known is None
            or vote.offset_ns > known.offset_ns
            or vote.heard_ns - known.heard_ns > VOTE_NS
        ):
            self._votes[gateway] = vote
        if len(self._votes) > GATEWAYS_MAX:
            del self._votes[next(iter(self._votes))]

    def _check(
        self, gateway: str, offset_ns: int, says_clock: bool, own_offset_ns: int, now_ns: int
    ) -> ClockCheck:
        # A single gateway is compared with the controller alone.
        wrong_s = (offset_ns - own_offset_ns) / NS
        if wrong_s > CLOCK_WRONG_S_MAX:
            return ClockCheck(
                f"the clock of gateway {gateway!r} is {wrong_s:.0f} s ahead of the controller's; "
                f"it may be {CLOCK_WRONG_S_MAX} s ahead, so set it right",
                trusted=False,
            )
        # Only a majority can say that a clock is wrong.
        middle_ns, agree, clocks = self._other_clocks(gateway, own_offset_ns, now_ns)
        ahead_s = (offset_ns - middle_ns) / NS
        is_behind = says_clock and -ahead_s > CLOCK_BEHIND_S_MAX
        if 2 * agree <= clocks or not (ahead_s > CLOCK_AHEAD_S_MAX or is_behind):
            return ClockCheck()
        # A clock that was right may have been set back, or its batches were held up on their way.
        vote = self._votes.get(gateway)
        was_right = vote is not None and middle_ns - vote.offset_ns <= CLOCK_BEHIND_S_MAX * NS
        if is_behind and was_right:
            since_ns = self._behind_since_ns.setdefault(gateway, now_ns)
            if now_ns - since_ns < BEHIND_S_MAX * NS:
                return ClockCheck(trusted=False)
        # The reason is for the people at the gateway and at the controller.
        word, allowed_s = (
            ("behind", CLOCK_BEHIND_S_MAX) if is_behind else ("ahead of", CLOCK_AHEAD_S_MAX)
        )
        return ClockCheck(
            f"the clock of gateway {gateway!r} is {abs(ahead_s):.0f} s {word} those of the "
            f"controller and of {agree - 1} other gateways; it may be {allowed_s} s {word} them, "
            "so set it right",
            trusted=False,
        )

    def _other_clocks(self, gateway: str, own_offset_ns: int, now_ns: int) -> tuple[int, int, int]:
        """Return the median offset of all clocks but that of *gateway*, and two numbers of clocks.

        The first number is of those that agree with the median, the second of all clocks, *gateway*
        included. Gateways that have gone have none.
        """
        others_ns = [own_offset_ns]
        others_ns += [
            vote.offset_ns
            for name, vote in self._votes.items()
            if name != gateway and now_ns - vote.heard_ns <= 2 * VOTE_NS
        ]
        middle_ns = median_low(others_ns)
        agree = sum(abs(other - middle_ns) <= CLOCK_AHEAD_S_MAX * NS for other in others_ns)
        return middle_ns, agree, len(others_ns) + 1
