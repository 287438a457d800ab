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
    """A service that calls this gateway, and what it may do."""

    name: str
    """As windows, journal records and metrics have it. Empty: a caller without an identity."""
    models: frozenset[str] | None = None
    """The models that it may call. None: all."""

    def check_model(self, model: str) -> None:
        """Raise RefusedError PERMISSION_DENIED for a model that it may not call."""
        if self.models is not None and model not in self.models:
            raise RefusedError(MODEL_FORBIDDEN)


ANONYMOUS = Caller(name="")
"""Everybody, where the gateway has no callers file."""
