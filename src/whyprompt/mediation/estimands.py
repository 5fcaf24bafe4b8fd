"""Causal mediation estimands of potential-outcome arrays.

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

__all__ = ["PotentialOutcomes"]


_QUANTITIES = ("nie", "nde", "pure_nie", "total_nde")


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
        return _minus("y11", self.y11, "y00", self.y00)

    @property
    def nie(self) -> NDArray[np.float64]:
        """Natural indirect effect, ``Y(1, M(1)) - Y(1, M(0))``."""
        return _minus("y11", self.y11, "y10", _run(self.y10, "y10", "nie"))

    @property
    def nde(self) -> NDArray[np.float64]:
        """Natural direct effect, ``Y(1, M(0)) - Y(0, M(0))``: ``te == nde + nie``."""
        return _minus("y10", _run(self.y10, "y10", "nde"), "y00", self.y00)

    @property
    def pure_nie(self) -> NDArray[np.float64]:
        """Pure natural indirect effect, ``Y(0, M(1)) - Y(0, M(0))``."""
        return _minus("y01", _run(self.y01, "y01", "pure_nie"), "y00", self.y00)

    @property
    def total_nde(self) -> NDArray[np.float64]:
        """Total natural direct effect, ``Y(1, M(1)) - Y(0, M(1))``: ``te == pure_nie + total_nde``."""
        return _minus("y11", self.y11, "y01", _run(self.y01, "y01", "total_nde"))

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
