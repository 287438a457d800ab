"""The clocks of the gateways: which of them is ahead of all others, so that it is refused.

A clock that is ahead would close the seconds of all rollouts too early. A clock that is behind
looks like windows that are sent again after an outage, so it is let in: the inbox goes by the
quickest batches, and the windows of that gateway are late.

Pure: every instant is an argument. An offset is a clock minus the controller's monotonic clock.
"""

from dataclasses import dataclass
from statistics import median_low

from rollout.evidence.inbox import NS

CLOCK_AHEAD_S_MAX = 10
"""A gateway whose clock is further ahead of the others than this is refused, if they agree."""
CLOCK_WRONG_S_MAX = 86_400
"""No clock may be further ahead of the controller's, also not that of a single gateway."""
GATEWAYS_MAX = 1_000
"""Gateways in memory. The one that was heard first is forgotten."""
VOTE_NS = 60 * NS
"""How long the quickest batch of a gateway tells its clock."""


@dataclass(frozen=True, slots=True)
class _Vote:
    offset_ns: int
    heard_ns: int


class GatewayClocks:
    """The clock offset of each gateway, by its quickest batch of the last minute."""

    def __init__(self) -> None:
        self._votes: dict[str, _Vote] = {}

    def refusal(self, gateway: str, sent_unix_ns: int, unix_ns: int, now_ns: int) -> str:
        """Note when *gateway* sent a batch. Return why its clock is refused; empty: it is not.

        unix_ns, now_ns  the controller's wall clock and monotonic clock.

        The controller's own clock has one vote, like that of each other gateway. Without two
        votes that agree nobody can say whose clock is wrong, and the gateway is let in.
        """
        why = self._refusal(gateway, sent_unix_ns, unix_ns, now_ns)
        if why:
            self._votes.pop(gateway, None)
            return why
        vote, known = _Vote(sent_unix_ns - now_ns, now_ns), self._votes.get(gateway)
        if known is None or vote.offset_ns > known.offset_ns or now_ns - known.heard_ns > VOTE_NS:
            self._votes[gateway] = vote
        if len(self._votes) > GATEWAYS_MAX:
            del self._votes[next(iter(self._votes))]
        return ""

    def _refusal(self, gateway: str, sent_unix_ns: int, unix_ns: int, now_ns: int) -> str:
        wrong_s = (sent_unix_ns - unix_ns) / NS
        if wrong_s > CLOCK_WRONG_S_MAX:
            return (
                f"the clock of gateway {gateway!r} is {wrong_s:.0f} s ahead of the controller's; "
                f"it may be {CLOCK_WRONG_S_MAX} s ahead, so set it right"
            )
        offsets_ns = [unix_ns - now_ns]
        offsets_ns += [vote.offset_ns for name, vote in self._votes.items() if name != gateway]
        ahead_s = (sent_unix_ns - now_ns - median_low(offsets_ns)) / NS
        others_agree = max(offsets_ns) - min(offsets_ns) <= CLOCK_AHEAD_S_MAX * NS
        if len(offsets_ns) > 1 and others_agree and ahead_s > CLOCK_AHEAD_S_MAX:
            return (
                f"the clock of gateway {gateway!r} is {ahead_s:.0f} s ahead of those of the "
                f"controller and of {len(offsets_ns) - 1} other gateways; it may be "
                f"{CLOCK_AHEAD_S_MAX} s ahead, so set it right"
            )
        return ""
