"""The callers that a worker knows: whose token or certificate it is, as the file says now."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gateway.caller import Caller
from gateway.callers.callers_file import CallerEntry, read_callers_file
from gateway.callers.tokens import TokenVerifier
from gateway.errors import SettingsError
from gateway.status import Code, Refusal, RefusedError
from host.clock import NS_PER_SECOND, Clock

log = logging.getLogger("gateway")

CHECK_S = 1.0
"""Time between two looks at the callers file and the issuers' keys."""
VERDICT_S_MAX = 300
"""How long a JWT is believed without being verified again, if it does not expire before."""
NEGATIVE_S = 10
"""How long a token that nobody has is refused without being verified again."""
VERDICTS_MAX = 10_000
"""Verdicts that are remembered. Beyond it all are forgotten."""
FOREVER_NS = 2**62
OPEN_METHODS = "/grpc.health.v1.Health/"
"""What everybody may call: load balancers have no identity. access.rules says the same."""
UNKNOWN = "unknown"
"""Metric label of callers whom the file does not name."""
BEARER = "Bearer "

UNAUTHENTICATED = Refusal(
    Code.UNAUTHENTICATED,
    'this gateway serves callers that its callers file names: send "authorization: Bearer TOKEN" '
    "with a token that has not expired, or a client certificate",
)
"""It says the same whatever was wrong."""

OnCallerRefused = Callable[[str, str, int], None]
"""Called with (caller or UNKNOWN, code's name, calls) of refusals for identity, model or quota."""


class CallerDirectory:
    """The callers file of one worker. Read again when it changes; the last good one is kept.

    Touched by the event loop's thread, except `refresh`, which blocks.
    """

    def __init__(self, path: Path, clock: Clock, on_refused: OnCallerRefused) -> None:
        """Read the file; SettingsError if it is not valid."""
        self._path = path
        self._clock = clock
        self.on_refused = on_refused
        self._numbers: dict[str, int] = {}
        self._callers: list[Caller] = []
        self._entries: Sequence[CallerEntry] = ()
        self._by_certificate: dict[str, Caller] = {}
        self._changed_ns: int | None = None
        self._verdicts: dict[str, tuple[Caller | None, int]] = {}
        """Authorization header -> (caller, monotonic time until which this is so)."""
        self.generation = 0
        """Grows with each change of file or keys."""
        self._verifier = TokenVerifier(())
        self._read()

    # The file

    def _read(self) -> None:
        changed_ns = self._path.stat().st_mtime_ns if self._path.exists() else None
        parsed = read_callers_file(self._path)
        verifier = TokenVerifier(parsed.issuers)
        verifier.refresh_keys(self._clock.now_ns() / NS_PER_SECOND)
        # Numbers stay: calls that are inside have them.
        callers, entries = list(self._callers), []
        for entry in parsed.entries:
            number = self._numbers.setdefault(entry.caller.name, len(self._numbers) + 1)
            caller = replace(entry.caller, number=number)
            callers += [caller] * (number - len(callers))
            callers[number - 1] = caller
            entries.append(replace(entry, caller=caller))
        self._callers, self._entries, self._verifier = callers, entries, verifier
        self._by_certificate = {
            name: entry.caller for entry in entries for name in entry.certificates
        }
        self._changed_ns = changed_ns
        self._verdicts = {}
        self.generation += 1

    def refresh(self) -> bool:
        """Read the file and the issuers' keys again if they changed; return whether they did."""
        changed_ns = self._path.stat().st_mtime_ns if self._path.exists() else None
        if changed_ns != self._changed_ns:
            try:
                self._read()
            except SettingsError:
                self._changed_ns = changed_ns
                log.exception("callers_file_refused: the last good one is kept")
            else:
                return True
        if self._verifier.refresh_keys(self._clock.now_ns() / NS_PER_SECOND):
            self._verdicts = {}
            self.generation += 1
            return True
        return False

    async def follow(self, on_change: Callable[[], None]) -> None:
        """Refresh each second until cancelled; call *on_change* after each change."""
        while True:
            await asyncio.sleep(CHECK_S)
            if await asyncio.to_thread(self.refresh):
                on_change()

    # Identity

    @property
    def callers(self) -> Sequence[Caller]:
        """Every caller by number - 1, those that the file does not name any more as well."""
        return self._callers

    @property
    def entries(self) -> Sequence[CallerEntry]:
        """The callers that the file names now, with their credentials."""
        return self._entries

    @property
    def verifies_tokens(self) -> bool:
        """Whether the file has issuers of JWTs."""
        return any(entry.subject for entry in self._entries)

    def caller_of(self, number: int) -> Caller:
        """Return the caller with *number*, which was drawn before."""
        return self._callers[number - 1]

    def token_expiry_ns(self, entry: CallerEntry) -> int:
        """Return the monotonic time at which the tokens of an entry expire."""
        if entry.expires_unix_ns is None:
            return FOREVER_NS
        return self._clock.now_ns() + entry.expires_unix_ns - self._clock.unix_ns()

    def identify(self, authorizations: Sequence[str], names: Iterable[str]) -> Caller:
        """Return the caller that the token names or, without a token, the certificate.

        authorizations  the values of its authorization headers.
        names           DNS and URI names of its verified client certificate.

        Raises RefusedError UNAUTHENTICATED.
        """
        caller = None
        if len(authorizations) == 1:
            caller, _ = self.read_authorization(authorizations[0])
        elif not authorizations:
            known = self._by_certificate
            caller = next((known[name] for name in names if name in known), None)
        if caller is None:
            self.on_refused(UNKNOWN, Code.UNAUTHENTICATED.name, 1)
            raise RefusedError(UNAUTHENTICATED)
        return caller

    def read_authorization(self, header: str) -> tuple[Caller | None, int]:
        """Return (caller, monotonic ns until which it is so) of an authorization header.

        The caller is None if the header is no caller's token.
        """
        known = self._verdicts.get(header)
        if known is not None and self._clock.now_ns() < known[1]:
            return known
        if len(self._verdicts) >= VERDICTS_MAX:
            self._verdicts.clear()
        verdict = self._verdicts[header] = self._read_token(header)
        return verdict

    def _read_token(self, header: str) -> tuple[Caller | None, int]:
        now_ns, unix_s = self._clock.now_ns(), self._clock.unix_ns() / NS_PER_SECOND
        nobody = (None, now_ns + NEGATIVE_S * NS_PER_SECOND)
        token = header.removeprefix(BEARER)
        if token == header or not token:
            return nobody
        digest = hashlib.sha256(token.encode("latin-1", "replace")).hexdigest()
        for entry in self._entries:
            if digest in entry.token_sha256:
                expires_ns = self.token_expiry_ns(entry)
                return (entry.caller, expires_ns) if now_ns < expires_ns else nobody
        verified = self._verifier.verify(token, unix_s) if self.verifies_tokens else None
        if verified is not None:
            for entry in self._entries:
                if entry.subject == (verified.issuer, verified.subject):
                    left_s = min(verified.expires_unix_s - unix_s, VERDICT_S_MAX)
                    return entry.caller, now_ns + int(left_s * NS_PER_SECOND)
        return nobody
