"""How the parts of a data set are spelt: folders, arrays and splits of one's own."""

from collections.abc import Callable, Iterable

# Ours -> how it is read too, in upper case as well.
_SPELLINGS = {
    "train": ("train", "training"),
    "unlabeled": ("unlabeled", "unlabelled"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}


def part_of(name: str) -> str | None:
    """The part that a name means: train, unlabeled, valid or test; None: none of them."""
    return next((part for part, names in _SPELLINGS.items() if name.lower() in names), None)


def choose(names: Iterable[str], meaning: Callable[[str], str | None] = part_of) -> dict[str, str]:
    """Which names are read: what each one means -> the name.

    Where several mean the same, it is the one that is spelt as we do, or else the first one.
    """
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name != meaning(name), name)):
        meant = meaning(name)
        if meant is not None:
            found.setdefault(meant, name)
    return found
