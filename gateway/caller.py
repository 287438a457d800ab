"""A caller: a service with an identity of the callers file, or everybody without one."""

from dataclasses import dataclass

from gateway.status import Code, Refusal, RefusedError

MODEL_FORBIDDEN = Refusal(
    Code.PERMISSION_DENIED,
    "this caller may not call that model, or there is no such model; the gateway's callers file "
    "lists the models of each caller",
)
"""It says the same whether the model exists or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A service that calls this gateway, and what it may do. 0 in a bound: there is none."""

    name: str
    """As windows, journal records and metrics have it. Empty: a caller without an identity."""
    number: int = 0
    """From 1 in the order of the callers file; the same for the life of the worker."""
    models: frozenset[str] | None = None
    """The models that it may call. None: all."""
    calls_s: int = 0
    rows_s: int = 0
    bytes_s: int = 0
    """Calls, rows and bytes of messages a second, in one worker."""
    connections: int = 0
    streams: int = 0
    """Open connections and open calls, in one worker."""
    pins: frozenset[str] = frozenset()
    """The models of which it may pin every version: shadows, and all where the role is hidden."""

    def may_call(self, model: str) -> bool:
        """Whether it may call a model, which need not exist."""
        return self.models is None or model in self.models

    def may_pin(self, model: str) -> bool:
        """Whether it may pin every version of a model."""
        return model in self.pins

    def check_model(self, model: str) -> None:
        """Raise RefusedError PERMISSION_DENIED for a model that it may not call."""
        if not self.may_call(model):
            raise RefusedError(MODEL_FORBIDDEN)


ANONYMOUS = Caller(name="")
"""Everybody, where the gateway has no callers file."""
