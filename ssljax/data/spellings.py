"""Accepted spellings of the parts of a data set: the user's folders, arrays and splits."""

from collections.abc import Callable, Iterable

# The name used here -> other accepted spellings, in upper case as well.
_SPELLINGS = {
    "train": ("train", "training"),
    "unlabeled": ("unlabeled", "unlabelled"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}


def part_of(name: str) -> str | None:
    """Returns the part that a name means: train, unlabeled, valid or test; None: none of them."""
    return next((part for part, names in _SPELLINGS.items() if name.lower() in names), None)


def choose(names: Iterable[str], meaning: Callable[[str], str | None] = part_of) -> dict[str, str]:
    """Returns the names to read, by their meaning.

    If several names mean the same, the one with the spelling used here is read, or else the first.
    """
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name != meaning(name), name)):
        meant = meaning(name)
        if meant is not None:
            found.setdefault(meant, name)
    return found
