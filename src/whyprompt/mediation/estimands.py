"""Causal mediation estimands as pure functions of potential-outcome arrays.

``Y(a, M(b))`` is the outcome of prompt ``a`` when the mediator has the value it
takes under prompt ``b``. Four arrays hold all that a sweep over mediators needs:

======  ==============  ==========================================
name    is              shape in a sweep
======  ==============  ==========================================
y00     Y(0, M(0))      items
y11     Y(1, M(1))      items
y10     Y(1, M(0))      items x mediators (any trailing shape)
y01     Y(0, M(1))      items x mediators (any trailing shape)
======  ==============  ==========================================

References
----------
Pearl, J. (2001). Direct and indirect effects. UAI, eqs. 6 and 8.
Robins, J. M. and Greenland, S. (1992). Identifiability and exchangeability for
direct and indirect effects. Epidemiology 3(2), 143-155 (pure and total effects).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Effects",
    "mediation_effects",
    "natural_direct_effect",
    "natural_indirect_effect",
    "pure_natural_indirect_effect",
    "total_effect",
    "total_natural_direct_effect",
]


def total_effect(y11: ArrayLike, y00: ArrayLike) -> NDArray[np.float64]:
    """Total effect, ``Y(1, M(1)) - Y(0, M(0))``.

    Parameters
    ----------
    y11, y00 : array-like, shape (items,)
        Outcomes of the two clean runs.

    Returns
    -------
    ndarray, shape (items,)

    Examples
    --------
    >>> total_effect([-1.0], [-3.0]).tolist()
    [2.0]
    """
    return _minus("y11", y11, "y00", y00)


def natural_indirect_effect(y11: ArrayLike, y10: ArrayLike) -> NDArray[np.float64]:
    """(Total) natural indirect effect, ``Y(1, M(1)) - Y(1, M(0))``.

    Parameters
    ----------
    y11 : array-like, shape (items,)
        Outcome of prompt 1.
    y10 : array-like, shape (items, ...)
        Outcome of prompt 1 with each mediator at its value under prompt 0.

    Returns
    -------
    ndarray, shape of `y10`

    Examples
    --------
    >>> natural_indirect_effect([-1.0], [[-1.5, -1.0]]).tolist()
    [[0.5, 0.0]]
    """
    return _minus("y11", y11, "y10", y10)


def natural_direct_effect(y10: ArrayLike, y00: ArrayLike) -> NDArray[np.float64]:
    """(Pure) natural direct effect, ``Y(1, M(0)) - Y(0, M(0))``.

    Parameters
    ----------
    y10 : array-like, shape (items, ...)
        Outcome of prompt 1 with each mediator at its value under prompt 0.
    y00 : array-like, shape (items,)
        Outcome of prompt 0.

    Returns
    -------
    ndarray, shape of `y10`

    Examples
    --------
    >>> natural_direct_effect([[-1.5, -1.0]], [-3.0]).tolist()
    [[1.5, 2.0]]
    """
    return _minus("y10", y10, "y00", y00)


def pure_natural_indirect_effect(y01: ArrayLike, y00: ArrayLike) -> NDArray[np.float64]:
    """Pure natural indirect effect, ``Y(0, M(1)) - Y(0, M(0))``.

    Parameters
    ----------
    y01 : array-like, shape (items, ...)
        Outcome of prompt 0 with each mediator at its value under prompt 1.
    y00 : array-like, shape (items,)
        Outcome of prompt 0.

    Returns
    -------
    ndarray, shape of `y01`

    Examples
    --------
    >>> pure_natural_indirect_effect([[-2.5, -3.0]], [-3.0]).tolist()
    [[0.5, 0.0]]
    """
    return _minus("y01", y01, "y00", y00)


def total_natural_direct_effect(y11: ArrayLike, y01: ArrayLike) -> NDArray[np.float64]:
    """Total natural direct effect, ``Y(1, M(1)) - Y(0, M(1))``.

    Parameters
    ----------
    y11 : array-like, shape (items,)
        Outcome of prompt 1.
    y01 : array-like, shape (items, ...)
        Outcome of prompt 0 with each mediator at its value under prompt 1.

    Returns
    -------
    ndarray, shape of `y01`

    Examples
    --------
    >>> total_natural_direct_effect([-1.0], [[-2.5, -3.0]]).tolist()
    [[1.5, 2.0]]
    """
    return _minus("y11", y11, "y01", y01)


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """The five quantities for a set of items and mediators.

    Attributes
    ----------
    te : ndarray, shape (items,)
    nie, nde : ndarray or None, shape of `y10`
        ``te == nde + nie``.
    pure_nie, total_nde : ndarray or None, shape of `y01`
        ``te == pure_nie + total_nde``.
    """

    te: NDArray[np.float64]
    nie: NDArray[np.float64] | None
    nde: NDArray[np.float64] | None
    pure_nie: NDArray[np.float64] | None
    total_nde: NDArray[np.float64] | None


def mediation_effects(
    y00: ArrayLike,
    y11: ArrayLike,
    *,
    y10: ArrayLike | None = None,
    y01: ArrayLike | None = None,
) -> Effects:
    """All effects that the given potential outcomes identify.

    Parameters
    ----------
    y00, y11 : array-like, shape (items,)
        Outcomes of the clean runs.
    y10, y01 : array-like, shape (items, ...), optional
        Outcomes of the crossed runs; what is not given is None in the result.

    Returns
    -------
    Effects

    Raises
    ------
    MediationError
        If an array holds a value that is not finite, or the shapes do not agree.

    Examples
    --------
    >>> e = mediation_effects([-3.0], [-1.0], y10=[[-1.5, -1.0]])
    >>> e.te.tolist(), e.nie.tolist(), e.nde.tolist(), e.pure_nie
    ([2.0], [[0.5, 0.0]], [[1.5, 2.0]], None)
    """
    return Effects(
        te=total_effect(y11, y00),
        nie=None if y10 is None else natural_indirect_effect(y11, y10),
        nde=None if y10 is None else natural_direct_effect(y10, y00),
        pure_nie=None if y01 is None else pure_natural_indirect_effect(y01, y00),
        total_nde=None if y01 is None else total_natural_direct_effect(y11, y01),
    )


def _minus(left: str, a: ArrayLike, right: str, b: ArrayLike) -> NDArray[np.float64]:
    """Subtract with items along the first axis and the shorter shape padded on the right."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    for name, array in ((left, x), (right, y)):
        if array.ndim == 0:
            raise MediationError(f"{name} must have items along its first axis, but it is a scalar")
        if not np.isfinite(array).all():
            raise MediationError(
                f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite",
                hint="a NaN or infinite outcome comes from the model's logits; leave the item out or mend it",
            )
    if x.shape[0] != y.shape[0]:
        raise MediationError(f"{left} has {x.shape[0]} items but {right} has {y.shape[0]}")
    ndim = max(x.ndim, y.ndim)
    x = x.reshape(x.shape + (1,) * (ndim - x.ndim))
    y = y.reshape(y.shape + (1,) * (ndim - y.ndim))
    return np.asarray(x - y)
