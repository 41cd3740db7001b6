"""Checks images in memory and their labels for duplicates, leaks, few labels and imbalance."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split, class_counts
from ssljax.log import printable

_NEAR = 6.0  # mean pixel difference, 0..255, below which images are nearly equal
_FLAT = 2.0  # standard deviation of pixels below which an image is nearly constant
_FEW = 5  # labels per class below which the class is reported
_UNEVEN = 3.0  # ratio of the most frequent to the rarest class above which it is reported
_NAMED = 3  # examples per line
PARTS = ("labelled", "unlabelled", "validation", "test")


class Group(NamedTuple):
    """A group of equal or nearly equal images."""

    parts: tuple[str, ...]  # labelled, unlabelled, validation or test, for each image
    positions: tuple[int, ...]  # numbers of the images, training and test images each from 0
    exact: bool


def lines(data: Dataset, split: Split) -> list[str]:
    """Returns the findings, one per line; the list is empty if there are none."""
    return [
        *_describe_duplicates(duplicates(data, split), data),
        *_describe_flat(data),
        *_describe_labels(data, split),
    ]


def duplicates(data: Dataset, split: Split) -> list[Group]:
    """Returns groups of equal and of nearly equal images, the equal ones first.

    Nearly equal images have the same difference hash (9×8 grey pixels, each compared with its
    neighbour) and pixels that differ by less than 6 of 255 on average. An image that the split
    lists as both labelled and unlabelled is one image here, and counts as labelled.
    """
    images = np.concatenate([data.images, data.test_images])
    part = _parts(data, split)
    keep = np.flatnonzero(part >= 0)
    same, similar = defaultdict(list), defaultdict(list)
    for i in keep:
        same[hashlib.sha1(images[i].tobytes()).digest()].append(int(i))
    for members in same.values():
        similar[_difference_hash(images[members[0]])].append(members[0])
    groups = [(members, True) for members in same.values() if len(members) > 1]
    groups += [(pair, False) for members in similar.values() for pair in _near(images, members)]
    return [
        Group(
            tuple(PARTS[part[i]] for i in members),
            tuple(i - len(data.images) * (PARTS[part[i]] == "test") for i in members),
            exact,
        )
        for members, exact in groups
    ]


def _parts(data: Dataset, split: Split) -> np.ndarray:
    """Returns the index into `PARTS` of each image, training images first; -1: none."""
    part = np.full(len(data.images) + len(data.test_images), -1)
    for number, indices in enumerate((split.unlabeled, split.labeled)):
        part[indices] = 1 - number
    part[np.setdiff1d(split.valid, split.labeled)] = 2
    part[len(data.images) :] = 3
    return part


def _difference_hash(image: np.ndarray) -> bytes:
    grey = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("L")
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BILINEAR)).astype(int)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def _near(images: np.ndarray, members: Sequence[int]) -> list[list[int]]:
    """Returns nearly equal pairs among images with one hash; of many images, only neighbours."""
    few = len(members) <= 50
    pairs = combinations(members, 2) if few else pairwise(members)
    flat = {i: images[i].astype(np.int16) for i in members}
    return [[i, j] for i, j in pairs if np.abs(flat[i] - flat[j]).mean() < _NEAR]


def _describe_duplicates(found: Sequence[Group], data: Dataset) -> list[str]:
    """Describes duplicates by their parts; duplicates in training and evaluation are leaks."""
    texts = []
    for exact, kind in ((True, "equal"), (False, "nearly equal")):
        by_parts: dict[tuple[str, ...], list[Group]] = defaultdict(list)
        for group in (group for group in found if group.exact == exact):
            by_parts[tuple(part for part in PARTS if part in group.parts)].append(group)
        for parts, groups in sorted(by_parts.items()):
            leak = len(parts) > 1 and {"validation", "test"} & {*parts}
            texts.append(
                f"{'leak: ' if leak else ''}{len(groups)} groups of {kind} images, "
                f"{' and '.join(parts)}, such as {_named(data, groups)}"
            )
    conflicts = [group for group in found if group.exact and len(_labels(data, group)) > 1]
    if conflicts:
        texts.append(
            f"{len(conflicts)} groups of equal images have different labels, such as "
            f"{_named(data, conflicts)}"
        )
    return texts


def _labels(data: Dataset, group: Group) -> set[int]:
    """Returns the labels of equal images, ignoring unlabelled ones."""
    pairs = zip(group.parts, group.positions, strict=True)
    known = [(part, i) for part, i in pairs if part != "unlabelled"]
    return {int((data.test_labels if part == "test" else data.labels)[i]) for part, i in known}


def _named(data: Dataset, groups: Sequence[Group]) -> str:
    names = {"test": data.names("test")}
    train = data.names()
    texts = [
        " = ".join(
            f"{part} {printable(names.get(part, train)[i])}"
            for part, i in zip(group.parts, group.positions, strict=True)
        )
        for group in groups[:_NAMED]
    ]
    return "; ".join(texts)


def _describe_flat(data: Dataset) -> list[str]:
    flat = np.flatnonzero([image.std() < _FLAT for image in data.images])
    if not len(flat):
        return []
    names = data.names()
    named = ", ".join(printable(names[i]) for i in flat[:_NAMED])
    return [f"{len(flat)} training images are nearly constant, such as {named}"]


def _describe_labels(data: Dataset, split: Split) -> list[str]:
    counts = class_counts(data.labels, split, data.num_classes)
    texts = []
    few = [f"{data.class_names[c]} ({counts[c]})" for c in np.flatnonzero(counts < _FEW)]
    if few:
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        texts.append(
            f"{len(few)} classes have fewer than {_FEW} labelled images: "
            f"{', '.join(few[:_NAMED])}{more}"
        )
    if counts.min() and counts.max() / counts.min() > _UNEVEN:
        most, least = data.class_names[counts.argmax()], data.class_names[counts.argmin()]
        texts.append(f"the labels are uneven: {counts.max()} of {most}, {counts.min()} of {least}")
    return texts
