"""The curves of a report: the metrics of its runs over the steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ssljax.report import groups as grouping
from ssljax.report import plots, svg
from ssljax.report.groups import Group
from ssljax.report.picture import Picture, file_name
from ssljax.run import results

Value = Callable[[dict[str, Any]], float | None]


class _Curve(NamedTuple):
    """The content of a figure."""

    name: str
    title: str
    ylabel: str
    value: Value  # function of a row of `metrics.jsonl`
    is_percent: bool = True


def _number(key: str) -> Value:
    return lambda row: row.get(key)


def _share(key: str) -> Value:
    return lambda row: None if row.get(key) is None else 100 * row[key]


def _error(key: str) -> Value:
    return lambda row: None if row.get(key) is None else 100 * (1 - row[key])


_TEST, _VALIDATION = results.HEADLINES["test"], results.HEADLINES["validation"]
_CURVES = (
    _Curve("test_error", "Test error, averaged (EMA) weights", "error, %", _error(_TEST)),
    _Curve("test_error_raw", "Test error, raw weights", "error, %",
           _error(grouping.raw(_TEST))),
    _Curve("validation_error", "Validation error, averaged (EMA) weights", "error, %",
           _error(_VALIDATION)),
    _Curve("mask_rate", "Mask rate: unlabelled images that count", "images, %",
           _share("guess/mask_rate")),
    _Curve("pseudo_label_accuracy", "Accuracy of all pseudo-labels", "accuracy, %",
           _share("guess/accuracy")),
    _Curve("pseudo_label_accuracy_masked", "Accuracy of the pseudo-labels that count",
           "accuracy, %", _share("guess/accuracy_masked")),
    _Curve("foreign", "Unlabelled images judged to be of no class", "images, %",
           _share("foreign")),
    _Curve("loss", "Training loss", "loss, nats", _number("loss/total"), False),
    _Curve("learning_rate", "Learning rate", "learning rate", _number("learning_rate"), False),
    _Curve("images_per_second", "Speed of training", "images per second",
           _number("images_per_second"), False),
)  # fmt: skip


def of_data(group: Group) -> str:
    """The data set and the number of labels, for headings."""
    labels = "" if group.labels is None else f", {group.labels:,} labels"
    return group.data_set + labels


def together(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups that share their figures, by data set and number of labels."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(of_data(group), []).append(group)
    return found


def curves(groups: Sequence[Group]) -> dict[str, list[Picture]]:
    """The curves over the steps, by data set and number of labels."""
    return {data: _of_members(members) for data, members in together(groups).items()}


def _of_members(members: Sequence[Group]) -> list[Picture]:
    stem = file_name(f"{members[0].data_set}_{members[0].labels}")
    evaluated = {
        row["step"] for group in members for run in group.runs for row in grouping.evaluations(run)
    }
    ticks = plots.some_steps(evaluated)
    pictures = []
    for curve in _CURVES:
        figures = [
            plots.curve(
                members,
                curve.value,
                ylabel=curve.ylabel,
                is_percent=curve.is_percent,
                ticks=ticks,
                legend=legend,
            )
            for legend in (False, True)
        ]
        images = [svg.render(figure) for figure in figures if figure is not None]
        if images:
            name, (data, alone) = f"{stem}_{curve.name}", images
            pictures.append(Picture(name, curve.title, "", "svg", data, alone, curve.is_percent))
    return pictures


class Entry(NamedTuple):
    """A line of the legend that a page shows once for all figures of a data set."""

    color: str  # a CSS colour, also currentColor
    dashes: str  # SVG's `stroke-dasharray`; "": none
    label: str


_DASHES = {"-": "", "--": "6 3", ":": "2 3", "-.": "8 3 2 3"}


def legend(members: Sequence[Group]) -> list[Entry]:
    """The legend of the lines of `curves`; groups without metrics have no entry."""
    looks = [plots.look(i) for i in range(len(members))]
    return [
        Entry(
            "currentColor" if look.color == svg.INK else look.color,
            _DASHES[look.style],
            plots.line_label(group),
        )
        for look, group in zip(looks, members, strict=True)
        if any(run.rows for run in group.runs)
    ]


def band_text(members: Sequence[Group]) -> str:
    """A text on the runs that the lines and bands summarise."""
    most = max(len(group.runs) for group in members)
    if most == 1:
        return "Each line is a single run, so that no band shows how much runs differ."
    text = (
        "Each line is the mean over the runs of its row. The band reaches one standard deviation "
        "over these runs (n − 1) above and below it, and ends at 0 and 100 %."
    )
    if any(len(group.runs) == 2 for group in members):
        text += f" {grouping.OF_TWO}"
    if any(len(group.runs) == 1 for group in members):
        text += " The line of a single run has no band."
    return text
