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
    "PotentialOutcomes",
    "natural_direct_effect",
    "natural_indirect_effect",
    "pure_natural_indirect_effect",
    "total_effect",
    "total_natural_direct_effect",
]


_QUANTITIES = ("nie", "nde", "pure_nie", "total_nde")


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


@dataclass(frozen=True, kw_only=True, eq=False)
class PotentialOutcomes:
    """Potential outcomes of items, and all effects that they identify.

    Attributes
    ----------
    y00, y11 : array-like, shape (items,)
        Outcomes of the clean runs.
    y10, y01 : array-like or None, shape (items, ...)
        Outcomes of the crossed runs; None where they were not run.

    Examples
    --------
    >>> e = PotentialOutcomes(y00=[-3.0], y11=[-1.0], y10=[[-1.5, -1.0]])
    >>> e.te.tolist(), e.nie.tolist(), e.nde.tolist(), e.quantities
    ([2.0], [[0.5, 0.0]], [[1.5, 2.0]], ('nie', 'nde'))
    """

    y00: ArrayLike
    y11: ArrayLike
    y10: ArrayLike | None = None
    y01: ArrayLike | None = None

    @property
    def te(self) -> NDArray[np.float64]:
        """Total effect, ``Y(1, M(1)) - Y(0, M(0))``, one an item."""
        return total_effect(self.y11, self.y00)

    @property
    def nie(self) -> NDArray[np.float64]:
        """Natural indirect effect, ``Y(1, M(1)) - Y(1, M(0))``."""
        return natural_indirect_effect(self.y11, _run(self.y10, "y10", "nie"))

    @property
    def nde(self) -> NDArray[np.float64]:
        """Natural direct effect, ``Y(1, M(0)) - Y(0, M(0))``: ``te == nde + nie``."""
        return natural_direct_effect(_run(self.y10, "y10", "nde"), self.y00)

    @property
    def pure_nie(self) -> NDArray[np.float64]:
        """Pure natural indirect effect, ``Y(0, M(1)) - Y(0, M(0))``."""
        return pure_natural_indirect_effect(_run(self.y01, "y01", "pure_nie"), self.y00)

    @property
    def total_nde(self) -> NDArray[np.float64]:
        """Total natural direct effect, ``Y(1, M(1)) - Y(0, M(1))``: ``te == pure_nie + total_nde``."""
        return total_natural_direct_effect(self.y11, _run(self.y01, "y01", "total_nde"))

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the effects that can be had beside ``te``."""
        have = [] if self.y10 is None else ["nie", "nde"]
        return (*have, *([] if self.y01 is None else ["pure_nie", "total_nde"]))

    def effect(self, quantity: str) -> NDArray[np.float64]:
        """One effect by its name, items x mediators.

        Parameters
        ----------
        quantity : {"nie", "nde", "pure_nie", "total_nde"}

        Returns
        -------
        ndarray

        Raises
        ------
        MediationError
            If the quantity is unknown or was not run.
        """
        if quantity not in _QUANTITIES:
            raise MediationError(f"unknown quantity {quantity!r}", hint=f"one of {', '.join(_QUANTITIES)}")
        array: NDArray[np.float64] = getattr(self, quantity)
        return array


def _run(array: ArrayLike | None, name: str, quantity: str) -> ArrayLike:
    if array is None:
        raise MediationError(
            f"{quantity} needs {name}, which this sweep did not run",
            hint=f"ask for it: directions=('{quantity}',)",
        )
    return array


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
