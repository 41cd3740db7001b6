"""The largest batch whose step fits in memory."""

from collections.abc import Callable

_SHARE = 8  # of the batch that fits: how closely the largest one is found


def largest(fits: Callable[[int], bool], start: int) -> int:
    """The largest number from 1 up that fits, to an eighth of it; 0: none does.

    What fits is doubled and what does not is halved until both are known; then the interval is
    halved.

    Args:
      fits: is asked for each number once.
      start: the number to begin with, from 1 up.
    """
    if fits(start):
        below, above = start, 2 * start
        while fits(above):
            below, above = above, 2 * above
    else:
        below, above = start // 2, start
        while below and not fits(below):
            below, above = below // 2, below
    while above - below > max(1, below // _SHARE):
        middle = (below + above) // 2
        below, above = (middle, above) if fits(middle) else (below, middle)
    return below
