"""Renders figures as SVG files that follow the reader's light or dark theme."""

import io
import warnings
from typing import Any

from ssljax.drawing import Figure, mpl

INK, PAPER = "#1b1f24", "#ffffff"  # text and lines, and background; dark pages replace them
WHITE = "#fefefe"  # text on saturated colours, in both themes
_DARK = {INK: "#e6edf3", PAPER: "#0d1117"}
STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",  # `fonts` has its list of characters
    "font.size": 9,
    "grid.alpha": 0.4,
    "grid.color": "#8b949e",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "ssljax",  # the same figure gives the same file
    "text.color": INK,
    "text.parse_math": False,  # names may contain dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
}


def render(figure: Figure) -> bytes:
    """The figure as an SVG file, drawn in `STYLE`.

    Programs without support for style sheets show it in light colours.
    """
    file = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Names have no missing characters; any others are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None})
    head, tag, rest = file.getvalue().partition(b"<defs>")
    return head + dark_style().encode() + tag + rest


def dark_style() -> str:
    """The style sheet that replaces the colours on dark pages."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    )
    return f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>\n "
