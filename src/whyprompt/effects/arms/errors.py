"""Arms whose rows cannot show how far their mean may be off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["pair_known", "without_error"]

_SAME = "its outcomes are all equal, in this sample"


def without_error(
    y: NDArray[Any], labels: NDArray[Any], arms: Sequence[str], units: NDArray[Any] | None
) -> dict[str, str]:
    """Name the arms whose rows show no spread, and why.

    Parameters
    ----------
    y, labels : ndarray, shape (n,)
        Outcome and arm.
    arms : sequence of str
    units : ndarray, shape (n,), optional
        Clusters.

    Returns
    -------
    dict of str to str
    """
    out = {}
    for arm in arms:
        here = labels == arm
        if units is not None and len(set(units[here].tolist())) == 1:
            out[arm] = "all its rows are in one cluster"
        elif (y[here] == y[here][0]).all():
            out[arm] = _SAME
    return out


def pair_known(blind: Mapping[str, str], a: str, b: str) -> bool:
    """Say whether two arms can be compared with a standard error.

    Parameters
    ----------
    blind : mapping of str to str
        From `without_error`.
    a, b : str
        Arms.

    Returns
    -------
    bool
        One of the two may have equal outcomes; neither may be in one cluster, which hides what clusters do.
    """
    why = [blind[arm] for arm in (a, b) if arm in blind]
    return not why or why == [_SAME]
