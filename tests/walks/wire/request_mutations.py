"""Requests as a fuzzer sends them: real ones, damaged at random from a seed."""

from collections.abc import Iterator, Sequence
from random import Random

ODD_BYTES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80" * 9 + b"\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x0a",
    b"\x22",
)
STEPS_MAX = 4


def mutated_requests(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield requests without end: one in eight unchanged, the others damaged one to four times."""
    draw = Random(seed)
    while True:
        message = draw.choice(corpus)
        for _ in range(draw.randrange(1, STEPS_MAX + 1) if draw.random() < 7 / 8 else 0):
            message = _damage(message, draw, corpus)
        yield message


def _damage(message: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    first, last = sorted((draw.randrange(len(message) + 1), draw.randrange(len(message) + 1)))
    match draw.randrange(8):
        case 0:  # one bit
            if not message:
                return message
            at = draw.randrange(len(message))
            return message[:at] + bytes([message[at] ^ 1 << draw.randrange(8)]) + message[at + 1 :]
        case 1:  # one byte
            return message[:first] + bytes([draw.randrange(256)]) + message[first + 1 :]
        case 2:  # a piece removed
            return message[:first] + message[last:]
        case 3:  # a piece repeated
            return message[:last] + message[first:]
        case 4:  # odd bytes inserted
            return message[:first] + draw.choice(ODD_BYTES) + message[first:]
        case 5:  # cut off
            return message[:last]
        case 6:  # the front of one, the end of another
            other = draw.choice(corpus)
            return message[:first] + other[draw.randrange(len(other) + 1) :]
        case _:  # a piece replaced by noise
            return message[:first] + draw.randbytes(last - first) + message[last:]
