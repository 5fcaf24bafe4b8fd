"""What every result of a check has in common: a sentence, values that JSON can hold, a table."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from whyprompt.effects.result import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

__all__ = ["Reported", "rows_frame"]


class Reported:
    """Base of frozen dataclasses with a `sentence`.

    A subclass names in `_unlisted` the fields that `to_dict` leaves out (arrays of one number a row of the
    table), and overrides `to_frame` where its table has more than one row.
    """

    _unlisted: ClassVar[frozenset[str]] = frozenset()
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold.

        Returns
        -------
        dict
            A number that is not finite becomes None.
        """
        return {
            f.name: plain(getattr(self, f.name))
            for f in fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
            if f.name not in self._unlisted
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the result as a table.

        Returns
        -------
        pandas.DataFrame
            One row, a column for each scalar field.
        """
        import pandas as pd

        scalar = (str, int, float, type(None))
        return pd.DataFrame([{k: v for k, v in self.to_dict().items() if isinstance(v, scalar)}])

    def __str__(self) -> str:
        return self.sentence


def rows_frame(rows: Sequence[Any], kind: type) -> pd.DataFrame:
    """Turn a sequence of dataclass instances into a table, with its columns also where it is empty.

    Parameters
    ----------
    rows : sequence of dataclass instance
        One a row.
    kind : type
        Their class.

    Returns
    -------
    pandas.DataFrame
    """
    import pandas as pd

    return pd.DataFrame([plain(row) for row in rows], columns=[f.name for f in fields(kind)])
