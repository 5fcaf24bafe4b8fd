"""How a number is put into words, where a format specification would say something else."""

from __future__ import annotations

__all__ = ["percent"]


def percent(share: float) -> str:
    """Write a share in percent with the decimals that it was given with: 0.995 is no 100%.

    Parameters
    ----------
    share : float
        The level of an interval, for instance.

    Returns
    -------
    str

    Examples
    --------
    >>> percent(0.95), percent(0.995), percent(0.975)
    ('95%', '99.5%', '97.5%')
    """
    return f"{100 * share:.10g}%"
