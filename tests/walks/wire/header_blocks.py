"""Header blocks of responses (RFC 7541), where the table is announced as 0 bytes: no memory."""

from functools import cache
from urllib.parse import unquote

HUFFMAN_CODE_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b"
    "080606060505050606060606060607080f060c0a0d0607070707070707070707070707070707070707070707"
    "0807080d130d0e060f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414"
    "1616161716171717171718171818161718171717171516171617171816151416161717151716161815161717"
    "151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a"
    "1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)
"""Bits of each byte's Huffman code; the code is canonical, so lengths say all (appendix B)."""


@cache
def _huffman_codes() -> dict[tuple[int, int], int]:
    """(bits, code) -> byte."""
    codes, first = {}, 0
    for bits in range(max(HUFFMAN_CODE_LENGTHS) + 1):
        symbols = [symbol for symbol in range(256) if HUFFMAN_CODE_LENGTHS[symbol] == bits]
        codes.update({(bits, first + place): symbol for place, symbol in enumerate(symbols)})
        first = (first + len(symbols)) << 1
    return codes


def _huffman_decoded(text: bytes) -> bytes:
    codes, out, bits, code = _huffman_codes(), bytearray(), 0, 0
    for byte in text:
        for place in range(7, -1, -1):
            bits, code = bits + 1, code << 1 | byte >> place & 1
            if (symbol := codes.get((bits, code))) is not None:
                out.append(symbol)
                bits = code = 0
    assert bits < 8, "a Huffman string that ends in the middle"
    return bytes(out)


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Return the number at *at*, and where the next thing is."""
    value, mask = block[at] & (1 << prefix) - 1, (1 << prefix) - 1
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        value += (block[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if block[at - 1] < 128:
            return value, at


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    packed = block[at] & 0x80
    length, at = _integer(block, at, 7)
    text = block[at : at + length]
    return _huffman_decoded(text) if packed else text, at + length


@cache
def grpc_status_and_message(block: bytes) -> tuple[int | None, str]:
    """Return grpc-status and grpc-message of a block; None where it has none."""
    at, status, words = 0, None, ""
    while at < len(block):
        first = block[at]
        if first & 0x80:
            _, at = _integer(block, at, 7)
            continue
        if first & 0xE0 == 0x20:
            _, at = _integer(block, at, 5)
            continue
        place, at = _integer(block, at, 6 if first & 0x40 else 4)
        name = b""
        if not place:
            name, at = _text(block, at)
        value, at = _text(block, at)
        if name == b"grpc-status":
            status = int(value)
        elif name == b"grpc-message":
            words = unquote(value.decode("ascii"))
    return status, words
