"""The pictures of docs/methods.md: how a guess is made, and what learns it.

`python docs/method_pictures.py` writes docs/pictures/methods/<method>.svg. Each picture has a lane
of boxes that make the target, a lane of boxes that make the prediction, and the loss between them.
"""

from html import escape
from pathlib import Path

HERE = Path(__file__).parent / "pictures" / "methods"
BOX, HIGH, GAP, LEFT = 128, 40, 22, 8
STYLE = """
rect { fill: #e8eaf6; stroke: #3f51b5; } rect.loss { fill: #fff3e0; stroke: #ef6c00; }
path { fill: none; stroke: #555; } text { fill: #222; font: 12px sans-serif; text-anchor: middle; }
@media (prefers-color-scheme: dark) {
rect { fill: #283593; stroke: #9fa8da; } rect.loss { fill: #6d4c1b; stroke: #ffb74d; }
path { stroke: #bbb; } text { fill: #eee; } }
"""

# Target lane, prediction lane, loss. A newline breaks the text of a box.
WEAK, STRONG, MODEL, EMA = "weak view", "strong view", "model", "EMA model"
PICTURES = {
    "supervised": ([], ["labelled\nimage", MODEL], "cross-entropy\nwith the label"),
    "mixup": (
        ["two labels", "λ·a + (1−λ)·b"],
        ["two labelled\nimages", "λ·a + (1−λ)·b", MODEL],
        "cross-entropy",
    ),
    "pseudo_label": (
        [WEAK, MODEL, "likeliest class\nif p > τ"],
        ["the same\nweak view", MODEL],
        "cross-entropy",
    ),
    "pi_model": ([WEAK, MODEL], ["another\nweak view", MODEL], "squared error"),
    "mean_teacher": ([WEAK, EMA], ["another\nweak view", MODEL], "squared error"),
    "vat": ([WEAK, MODEL], ["view + change\nthat hurts most", MODEL], "divergence"),
    "ict": (
        ["two weak views", EMA, "λ·p + (1−λ)·q"],
        ["two weak views", "λ·a + (1−λ)·b", MODEL],
        "squared error",
    ),
    "mixmatch": (
        ["two weak views", MODEL, "mean, then\nsharpen", "mix with\nanother label"],
        ["views and\nlabelled images", "mix in pairs", MODEL],
        "squared error",
    ),
    "remixmatch": (
        [WEAK, MODEL, "align, then\nsharpen", "mix with\nanother label"],
        ["strong views", "mix in pairs", MODEL],
        "cross-entropy",
    ),
    "uda": ([WEAK, MODEL, "sharpen,\nif max p ≥ τ"], [STRONG, MODEL], "divergence"),
    "fixmatch": (
        [WEAK, MODEL, "likeliest class\nif max p ≥ τ"],
        [STRONG, MODEL],
        "cross-entropy",
    ),
    "self_training": (
        ["image", "models of the\nround before", "vote or mean"],
        [WEAK, "new student"],
        "cross-entropy",
    ),
    "flexmatch": (
        [WEAK, MODEL, "likeliest class\nif max p ≥ τ of it"],
        [STRONG, MODEL],
        "cross-entropy",
    ),
    "freematch": (
        [WEAK, MODEL, "likeliest class if\n≥ mean confidence"],
        [STRONG, MODEL],
        "cross-entropy\n+ fairness",
    ),
    "softmatch": (
        [WEAK, MODEL, "likeliest class,\nweight ≤ 1"],
        [STRONG, MODEL],
        "weighted\ncross-entropy",
    ),
    "adamatch": (
        [WEAK, MODEL, "align to the\nlabelled images", "if ≥ share of their\nconfidence"],
        [STRONG, MODEL],
        "cross-entropy",
    ),
    "dash": (
        [WEAK, MODEL, "sharpen, if loss\n< falling limit"],
        [STRONG, MODEL],
        "cross-entropy",
    ),
    "debiaspl": (
        [WEAK, EMA, "logits − τ·log q", "likeliest class\nif max p ≥ τ"],
        ["strong views", MODEL, "logits + τ·log q"],
        "cross-entropy",
    ),
    "comatch": (
        [WEAK, MODEL, "align, mix with\nsimilar images", "graph of guesses"],
        ["two strong\nviews", MODEL, "embeddings"],
        "cross-entropy\n+ contrast",
    ),
    "simmatch": (
        [WEAK, EMA, "classes × similarity\nto labelled images"],
        [STRONG, MODEL, "embedding"],
        "cross-entropy\n+ similarity",
    ),
    "abc": (
        [WEAK, "balanced head", "soft guess, kept more\noften if rare"],
        ["two strong\nviews", "balanced head"],
        "cross-entropy",
    ),
    "crest": (
        ["generation g", "EMA predicts all", "add surest guesses,\nmore of rare classes"],
        ["new weights", "FixMatch"],
        "generation\ng + 1",
    ),
    "iomatch": (
        [WEAK, MODEL, "belongs to a class?\none-vs-all head"],
        [STRONG, "heads for K and\nK + 1 classes"],
        "cross-entropy",
    ),
}


def text(box: str, x: float, y: float) -> str:
    """The lines of a box, centred at (x, y)."""
    lines = box.split("\n")
    return "".join(
        f'<text x="{x:g}" y="{y + 4 + 15 * (i - (len(lines) - 1) / 2):g}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def lane(boxes: list[str], y: float) -> str:
    """Boxes from left to right, with arrows between them."""
    drawn = ""
    for i, box in enumerate(boxes):
        x = LEFT + i * (BOX + GAP)
        drawn += f'<rect x="{x}" y="{y}" width="{BOX}" height="{HIGH}" rx="6"/>'
        drawn += text(box, x + BOX / 2, y + HIGH / 2)
        if i:
            drawn += arrow(x - GAP, y + HIGH / 2, x, y + HIGH / 2)
    return drawn


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:g} {y1:g} L{x2 - 2:g} {y2:g}" marker-end="url(#tip)"/>'


def picture(target: list[str], prediction: list[str], loss: str) -> str:
    """An SVG with two lanes (one where there is no target) and the loss at their ends."""
    lanes = [boxes for boxes in (target, prediction) if boxes]
    column = max(map(len, lanes))
    at = LEFT + column * (BOX + GAP)
    height = len(lanes) * (HIGH + 20) - 4
    middle = height / 2
    body = "".join(lane(boxes, 8 + i * (HIGH + 20)) for i, boxes in enumerate(lanes))
    y = middle - HIGH / 2
    body += f'<rect class="loss" x="{at}" y="{y:g}" width="{BOX}" height="{HIGH}" rx="6"/>'
    body += text(loss, at + BOX / 2, middle)
    for i, boxes in enumerate(lanes):
        end = LEFT + len(boxes) * (BOX + GAP) - GAP
        y = 8 + i * (HIGH + 20) + HIGH / 2
        bend = 0 if len(lanes) == 1 else (-8 if i == 0 else 8)
        if end < at - GAP:
            body += f'<path d="M{end} {y:g} L{at - GAP} {y:g}"/>'
        body += arrow(at - GAP, y, at, middle + bend)
    width = at + BOX + LEFT
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M1 1 L7 4 L1 7"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
        f'viewBox="0 0 {width} {height:g}"><style>{STYLE}</style>{tip}{body}</svg>\n'
    )


def main() -> None:
    """Writes all pictures."""
    HERE.mkdir(parents=True, exist_ok=True)
    for name, parts in PICTURES.items():
        (HERE / f"{name}.svg").write_text(picture(*parts), encoding="utf-8")


if __name__ == "__main__":
    main()
