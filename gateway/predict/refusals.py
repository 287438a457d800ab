"""The statuses with which the pipeline ends calls before any version sees them."""

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
