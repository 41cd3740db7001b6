"""The findings of a report in words, which are its first paragraphs."""

from collections.abc import Sequence

from ssljax.report import groups as grouping
from ssljax.report.curves import together
from ssljax.report.groups import Group, Spread

_SUPERVISED = "supervised"
_PERCENT, _PM = "\N{NO-BREAK SPACE}%", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"  # no line breaks


def findings(groups: Sequence[Group]) -> list[str]:
    """A paragraph for each data set and number of labels with an error."""
    paragraphs = [_paragraph(members) for members in together(groups).values()]
    return [text for text in paragraphs if text]


def _paragraph(members: Sequence[Group]) -> str:
    finished = [group for group in members if group.status == "finished" and _error(group)]
    known = finished or [group for group in members if _error(group)]
    if not known:
        return ""
    supervised = [group for group in known if group.method == _SUPERVISED]
    others = [group for group in known if group.method != _SUPERVISED]
    ranked = [min(rows, key=_mean) for rows in (others, supervised) if rows]
    text = _sentence(ranked[0], of=len(others or supervised))
    if not finished:
        text = f"No run has finished yet. So far: {text}"
    if others and supervised:
        return f"{text} {_comparison(*ranked)}"
    if others:
        return (
            f"{text} There is no supervised run on these labels, which would show what the "
            "unlabelled images are worth."
        )
    return text


def _sentence(group: Group, *, of: int) -> str:
    """`fixmatch, trained with 40 labels of digits, has a test error of 5.10 ± 0.42 % (…).`"""
    labels = (
        "" if group.labels is None else f"{group.labels:,} label{'s' * (group.labels != 1)} of "
    )
    part = grouping.headline_part(group.runs[0])
    best = f" This is the lowest mean of {of} rows, chosen by this very error." if of > 1 else ""
    return (
        f"{_name(group)}, trained with {labels}{group.data_set}, has a {part} error of "
        f"{in_percent(_spread(group))}.{best}"
    )


def _comparison(best: Group, supervised: Group) -> str:
    gain = _mean(supervised) - _mean(best)
    error = in_percent(_spread(supervised))
    what = f"Training on the labels alone ({_name(supervised)}) gives {error}"
    if abs(gain) < 0.005:
        return f"{what}: the same."
    verb = "lowers" if gain > 0 else "raises"
    text = f"{what}, so that {best.method} {verb} the error by {abs(gain):.2f} percentage points."
    single = [group.method for group in (best, supervised) if _spread(group).std is None]
    if single:
        text += f" With a single run of {' and of '.join(single)}, chance may be a part of this."
    return text


def in_percent(spread: Spread) -> str:
    """Text: `5.10 ± 0.42 % (mean and standard deviation of 3 runs)`, `5.10 % (a single run)`."""
    if spread.std is None:
        return f"{spread.mean:.2f}{_PERCENT} (a single run)"
    over = f"mean and standard deviation of {spread.runs} runs"
    return f"{spread.mean:.2f}{_PM}{spread.std:.2f}{_PERCENT} ({over})"


def _name(group: Group) -> str:
    return group.method + (f" ({group.settings})" if group.settings else "")


def _error(group: Group) -> Spread | None:
    return group.spread(grouping.median_error)


def _spread(group: Group) -> Spread:
    found = _error(group)
    assert found is not None
    return found


def _mean(group: Group) -> float:
    return _spread(group).mean
