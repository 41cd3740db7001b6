"""Figures -> SVG files that follow their reader's light or dark colours."""

import io
import warnings
from typing import Any

from ssljax.drawing import Figure, mpl

INK, PAPER = "#1b1f24", "#ffffff"  # of text and lines, and behind them; a dark page swaps them
WHITE = "#fefefe"  # on saturated colours, in the light and in the dark
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
    "font.family": "DejaVu Sans",  # which `fonts` knows the letters of
    "font.size": 9,
    "grid.alpha": 0.4,
    "grid.color": "#8b949e",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "ssljax",  # the same figure is the same file
    "text.color": INK,
    "text.parse_math": False,  # names may have dollars
    "xtick.color": INK,
    "ytick.color": INK,
}


def render(figure: Figure) -> bytes:
    """The figure as an SVG file, drawn in `STYLE`.

    Programs that know no style sheets show it light, as matplotlib has drawn it.
    """
    file = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Names are without such letters; what is left is shown as a box rather than not at all.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None})
    head, tag, rest = file.getvalue().partition(b"<defs>")
    return head + dark_style().encode() + tag + rest


def dark_style() -> str:
    """The style sheet that swaps the colours on dark pages."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    )
    return f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>\n "
