"""Writes an SVG picture to a file, as SVG or as PNG. PNG needs the extra `plots`."""

from collections.abc import Callable
from pathlib import Path

from turnout.errors import OperatorError

FONT_FAMILIES = ("DejaVu Sans", "Liberation Sans", "Noto Sans", "Open Sans", "Arial", "Helvetica")
"""Fonts of Linux, macOS and Windows, in the order in which they are tried."""
ZOOM = 2.0
"""Pixels in a PNG for each SVG unit, so that it is sharp on paper and on dense screens."""
FONT_PROBE_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">'
    '<text x="2" y="15" font-family="sans-serif" font-size="12">Ag</text></svg>'
)

Render = Callable[..., bytes]


def write_picture(svg: str, file: Path) -> None:
    """Write *svg* to *file*, as SVG or PNG by the ending of its name.

    OperatorError when the ending is another one, or when a PNG lacks its library or a font.
    """
    match file.suffix.lower():
        case ".svg":
            file.write_text(svg, encoding="utf-8")
        case ".png":
            file.write_bytes(render_png(svg))
        case other:
            raise OperatorError(f"a picture is .svg or .png, and {file.name} ends in {other!r}")


def render_png(svg: str) -> bytes:
    """Return *svg* as the bytes of a PNG; OperatorError when the library or a font is missing."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise OperatorError(
            "a PNG needs the extra plots: pip install 'turnout[plots]'. An SVG needs nothing: --svg"
        ) from error
    family = installed_font(svg_to_bytes)
    return bytes(svg_to_bytes(svg_string=svg, sans_serif_family=family, zoom=ZOOM))


def installed_font(render: Render, families: tuple[str, ...] = FONT_FAMILIES) -> str:
    """Return the first of *families* that is installed; OperatorError when none is.

    resvg draws text without any font as nothing, so a text is drawn with each and compared.
    """
    without = bytes(render(svg_string=FONT_PROBE_SVG, skip_system_fonts=True))
    for family in families:
        if bytes(render(svg_string=FONT_PROBE_SVG, sans_serif_family=family)) != without:
            return family
    raise OperatorError(
        f"this host has none of the fonts {', '.join(families)}, so a PNG would lack its text. "
        "Install one, such as fonts-dejavu-core, or write an SVG: --svg"
    )
