"""The statuses with which the pipeline ends calls before any version sees them."""

from gateway.columns import Pin
from gateway.status import Code, Refusal

MODEL_NOT_SERVED = Refusal(Code.NOT_FOUND, "the model is not served any more; ask DescribeModel")
TOO_LATE = Refusal(
    Code.DEADLINE_EXCEEDED,
    "the deadline passed, or is nearer than any answer; nothing was scored; send a later one",
)
NO_FEATURES = Refusal(
    Code.UNAVAILABLE,
    "stored features cannot be read now and this model does not answer without them; retry",
    pushback_ms=500,
)
NO_JOURNAL = Refusal(
    Code.UNAVAILABLE,
    "this model answers only what it can record, and its journal cannot be written now; retry",
    pushback_ms=500,
)


def pin_refusal(pin: Pin, model: str, *, hidden: bool) -> Refusal:
    """Return the status of a pin without an answer.

    hidden  whether the model hides which version answers. A caller that could compare the answers
            of two versions with the one that it got would know.
    """
    if hidden and not pin.any_version:
        return Refusal(
            Code.PERMISSION_DENIED,
            f"model {model!r} hides which version answers, so no version can be pinned without "
            "permission (pins in the gateway's callers file); leave version empty",
        )
    return Refusal(
        Code.NOT_FOUND,
        f"version {pin.version!r} of model {model!r} answers no pinned call; production, "
        "standby and canary do, and DescribeModel lists them",
    )
