"""The published rule for labelled, unlabelled and validation images, in NumPy only.

Source: `scripts/create_split.py`, `scripts/create_unlabeled.py` and `libml/data.py` of
google-research/mixmatch and google-research/fixmatch.
"""

import bisect
import hashlib
import re
from typing import NamedTuple

import numpy as np

_NAME = re.compile(
    r"(?P<dataset>.+)\.(?P<seed>\d+)@(?P<size>\d+|all)(\+(?P<unlabeled>\d+|all))?-(?P<valid>\d+)",
    re.DOTALL,
)
_TAIL = re.compile(r"(?P<dataset>.+)_lt(?P<labeled>-?\d+)(u(?P<unlabeled>-?\d+))?", re.DOTALL)

_PLACES = ("folder", "npz")  # data sets named by a path


class LongTail(NamedTuple):
    """The additional parts of a long-tailed name, such as `cifar10_lt100u-100.1@500+4000-0`."""

    labeled_ratio: int  # γ of the labelled images, see `long_tail.class_counts`
    unlabeled_ratio: int  # γ of the unlabelled ones; by default the same
    unlabeled: int | None  # images of the most frequent class; None: as many as possible


class SplitName(NamedTuple):
    """The parts of a published data-set name, for example `cifar10.3@250-5000`."""

    dataset: str
    seed: int  # 0: records are taken in their original order
    size: int | None  # number of labelled images; None ("all"): every image with a label
    valid: int  # number of validation images
    # Set for long-tailed names, whose `size` counts labelled images of the most frequent class.
    tail: LongTail | None = None


class Split(NamedTuple):
    """Indices into the training records, int64, each in the order of the published files."""

    labeled: np.ndarray  # [L], ascending
    unlabeled: np.ndarray  # [U], class-balanced order; may contain `labeled` (see `make_split`)
    valid: np.ndarray  # [V], the head of that same class-balanced order


def parse(name: str) -> SplitName:
    """Parses `<data set>.<seed>@<labels>-<validation images>`, or a long-tailed name.

    A long-tailed name is `<data set>_lt<γ>[u<γ>].<seed>@<labels>[+<unlabelled>]-<validation>`. If
    the data set is a path or has a dot, `+` is required, because its name may end in `_lt100`.

    Raises:
      ValueError: the name has another form (the message shows an example), or its seed is too
        large.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"dataset {name!r} is not <data set>.<seed>@<labels>-<validation images>, "
            "for example digits.1@40-100"
        )
    if int(match["seed"]) >= 2**32:
        raise ValueError(f"dataset {name!r} has a seed above {2**32 - 1}, the largest one")
    dataset, tail = _without_tail(match)
    if tail is None and match["unlabeled"]:
        raise ValueError(
            f"dataset {name!r} has a +, which is for long-tailed names, for example "
            "cifar10_lt100.1@1500+3000-0"
        )
    if tail is not None and 0 in tail[:2]:
        raise ValueError(
            f"dataset {name!r} has the ratio 0; allowed after _lt and u: from 1 up, and from -1 "
            "down for the reverse order"
        )
    size, valid = _number(match["size"]), int(match["valid"])
    return SplitName(dataset, int(match["seed"]), size, valid, tail)


def _number(text: str | None) -> int | None:
    return None if text in (None, "all") else int(str(text))


def _without_tail(match: re.Match[str]) -> tuple[str, LongTail | None]:
    """Splits the data-set part of a name into the data set and its long tail, if any."""
    dataset = match["dataset"]
    tail = _TAIL.fullmatch(dataset)
    if tail is None or (match["unlabeled"] is None and set(dataset) & set(".:")):
        return dataset, None
    ratios = int(tail["labeled"]), int(tail["unlabeled"] or tail["labeled"])
    return tail["dataset"], LongTail(*ratios, _number(match["unlabeled"]))


def _dataset(name: str) -> str:
    """Returns the data set of a name, with or without its numbers."""
    match = _NAME.fullmatch(name)
    return _without_tail(match)[0] if match else name


def with_later_seed(name: str, by: int) -> str:
    """Returns a name with its seed increased; a name without a seed is returned unchanged."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    start, end = match.span("seed")
    return f"{name[:start]}{int(match['seed']) + by}{name[end:]}"


def without_seed(name: str) -> str:
    """Returns a name without the seed of its labelled set, to compare names apart from it."""
    match = _NAME.fullmatch(name)
    if match is None:
        return re.sub(r"\.\d+$", "", name)  # imagenet128116.1
    start, end = match.span("seed")
    return name[: start - 1] + name[end:]


def without_numbers(name: str) -> str:
    """Returns a name without seed and numbers: the data set and, if long-tailed, its ratios."""
    match = _NAME.fullmatch(name)
    return match["dataset"] if match else re.sub(r"\.\d+$", "", name)


def place(name: str) -> str:
    """Returns the path in a name `folder:…` or `npz:…`; "": the name has none."""
    kind, _, where = _dataset(name).partition(":")
    return where if kind in _PLACES else ""


def without_place(name: str) -> str:
    """Returns a name without the path of its files, which does not change if a folder moves."""
    where, kind = place(name), name.partition(":")[0]
    return f"{kind}:{name.removeprefix(f'{kind}:{where}')}" if where else name


def whole(name: str) -> str:
    """Returns the name for all labels of a name's data set; numbers are optional."""
    if name.startswith("imagenet"):
        return "imagenet"
    return f"{_dataset(name)}.0@all-0"


def function_of(name: str) -> str:
    """Returns the function that a name calls: `tfds` for `tfds:pets.1@40-0`, `my_data.pets` for
    `my_data.pets.1@40-0`."""
    called = _dataset(name)
    if called == name:
        called = re.sub(r"\.\d+$", "", name)  # imagenet128116.1
    return called.partition(":")[0]


def make_split(
    labels: np.ndarray,
    *,
    seed: int,
    size: int | None,
    valid: int,
    include_labeled: bool,
    strict: bool = False,
    share: np.ndarray | None = None,
    balanced: bool = False,
    labeled: np.ndarray | None = None,
) -> Split:
    """Chooses labelled, unlabelled and validation records as the published scripts do.

    Labelled records are drawn in proportion to class sizes, and a first one of each class before a
    second one of any.

    Args:
      labels: `[N]` class of every training record in original order, from 0 up; -1: no label. A
        record without a label is never a labelled one, and comes last in the unlabelled order.
      seed: 0 takes records in order; other values seed NumPy's legacy MT19937 generator.
      size: number of labelled records; None labels all records, except validation records that must
        not be labelled.
      valid: number of validation records, taken from the start of the unlabelled order.
      include_labeled: whether the unlabelled order includes the labelled records. False is
        MixMatch's convention. True is FixMatch's, where a validation image can be a labelled one.
      strict: whether validation skips labelled records and records without a label.
      share: `[C]` size of each class relative to the largest; None counts `labels`.
      balanced: whether all classes have the same number of labelled records, as far as possible.
        No published split does so for classes of different sizes.
      labeled: the labelled records if they are published; `size` and `seed` are then ignored for
        them.

    Raises:
      ValueError: `size` or `valid` does not fit the records, or no record has a label.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0])
    if not len(counts):
        raise ValueError("no training image has a label")
    share = counts / counts.max() if share is None else np.asarray(share, np.float64)
    share = np.where(counts, share, -np.inf)  # a class without images is never chosen
    if labeled is None and size is None and (strict or not include_labeled):
        labeled = _all_but_valid(labels, share, valid)
    elif labeled is None:
        labeled = _choose_labeled(labels, counts, share, seed, size, balanced)
    is_labeled = np.zeros(len(labels), bool)
    is_labeled[labeled] = True
    rest = np.arange(len(labels)) if include_labeled else np.flatnonzero(~is_labeled)
    order = rest[_balanced_order(labels[rest], share)]
    useful = ~is_labeled[order] & (labels[order] >= 0) if strict else np.ones(len(order), bool)
    eligible = np.flatnonzero(useful)
    if not 0 <= valid <= len(eligible):
        what = ", the images with a label that are not the labelled ones" if strict else ""
        raise ValueError(
            f"{valid} validation images were asked for; allowed: 0 to {len(eligible)}{what}"
        )
    head = eligible[:valid]
    return Split(np.sort(labeled), np.delete(order, head), order[head])


def _all_but_valid(labels: np.ndarray, share: np.ndarray, valid: int) -> np.ndarray:
    """Returns all labelled records except the first `valid` records of the unlabelled order.

    No published split uses all labels together with validation images.
    """
    known = np.flatnonzero(labels >= 0)
    if not 0 <= valid < len(known):
        raise ValueError(
            f"{valid} validation images were asked for; allowed with all labels: 0 to "
            f"{len(known) - 1}"
        )
    return np.sort(known[_balanced_order(labels[known], share)][valid:])


def _choose_labeled(
    labels: np.ndarray,
    counts: np.ndarray,
    share: np.ndarray,
    seed: int,
    size: int | None,
    balanced: bool,
) -> np.ndarray:
    if size is None:
        return np.flatnonzero(labels >= 0)
    if not 1 <= size <= counts.sum():
        raise ValueError(f"{size} labels were asked for; allowed: 1 to {counts.sum()}")
    queues = [np.flatnonzero(labels == c) for c in range(len(counts))]
    if seed:
        generator = np.random.RandomState(seed)  # the generator that numpy.random.seed(seed) seeds
        for queue in queues:
            generator.shuffle(queue)
    if balanced:
        each = _equal_counts(counts, size)
        return np.concatenate([queue[:n] for queue, n in zip(queues, each, strict=True)])
    chosen = _take_in_turn(queues, share, size)
    if len(chosen) < size:
        taken = np.bincount(labels[chosen], minlength=len(share))
        c = _neediest(share, taken, taken.max())
        raise ValueError(f"{size} labels were asked for, but class {c} has only {counts[c]} images")
    return chosen


def _equal_counts(counts: np.ndarray, size: int) -> np.ndarray:
    """Returns counts per class that sum to `size`, as equal as the class sizes `[C]` allow."""
    most = range(size + 1)  # candidates for the largest count of a class
    level = bisect.bisect_right(most, size, key=lambda n: np.minimum(counts, n).sum()) - 1
    each = np.minimum(counts, level)
    each[np.flatnonzero(counts > level)[: size - each.sum()]] += 1
    return each


def _balanced_order(labels: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Returns the positions of `labels` in the order in which a class-balancing writer emits them.

    The writer queues the records by class and emits a record whenever the class next in turn has
    one. Which class is next depends only on the records emitted so far, not on their arrival.

    The published scripts count STL-10's images without labels as class 0. After records of equal
    class counts, as in STL-10, this gives the same order: they come at the end, in original order.
    """
    queues = [np.flatnonzero(labels == c) for c in range(len(share))]
    emitted = _take_in_turn(queues, share, sum(map(len, queues)))
    left = np.ones(len(labels), bool)
    left[emitted] = False
    remainder = [queue[left[queue]] for queue in queues]
    return np.concatenate([emitted, *remainder, np.flatnonzero(labels < 0)])


def _take_in_turn(queues: list[np.ndarray], share: np.ndarray, size: int) -> np.ndarray:
    """Returns the first `size` records taken from the classes in turn; fewer if one runs out."""
    left = [len(queue) for queue in queues]
    taken, most = np.zeros(len(share)), 0.0
    turns: list[int] = []
    while len(turns) < size and left[c := _neediest(share, taken, most)]:
        left[c] -= 1
        taken[c] += 1
        most = max(most, taken[c])  # updated, as a maximum at each of 600,000 turns takes seconds
        turns.append(c)
    turn = np.array(turns)
    records = np.zeros(len(turns), np.int64)
    for c, queue in enumerate(queues):
        records[turn == c] = queue[: int(taken[c])]
    return records


def _neediest(share: np.ndarray, taken: np.ndarray, most: float) -> int:
    """Returns the class furthest below its share of the records taken so far; ties: the lowest.

    Equals `argmax(share - taken / max(taken.max(), 1))` of the published scripts bit for bit;
    `most` is `taken.max()`.
    """
    return int((share - taken / max(most, 1)).argmax())


def class_counts(labels: np.ndarray, split: Split, num_classes: int) -> np.ndarray:
    """Returns labelled images per class, `[num_classes]`; `labels [N]` are those of all images."""
    return np.bincount(labels[split.labeled], minlength=num_classes)


def fingerprint(split: Split) -> str:
    """Returns a short hexadecimal hash of the three index lists and their order."""
    digest = hashlib.sha256()
    for indices in split:
        digest.update(len(indices).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(indices, "<i8").tobytes())
    return digest.hexdigest()[:16]
