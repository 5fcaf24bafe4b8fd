"""Estimating again on a changed table: what the refutations and the specification curve share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt.effects._frame import arms, open_table
from whyprompt.effects._problem import choose_confounders
from whyprompt.effects.estimate import estimate_effect
from whyprompt.errors import EstimationError, WhypromptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.result import EffectResult
    from whyprompt.graph import CausalGraph

__all__ = ["Base", "Verdict", "at_least", "failed_share", "two_sided"]

Verdict = Literal["passes", "fails", "doubtful"]

# More failed draws than this and the rest are a selection.
_MAX_FAILED = 0.2


class Base:
    """A table and an estimate, to be taken again with something changed.

    Parameters
    ----------
    frame : DataFrame
        Read and never written.
    treatment, outcome : str
    confounders, graph
        As in `estimate_effect`; the graph is asked once.
    options : dict
        Others of `estimate_effect`.
    """

    def __init__(
        self,
        frame: Any,  # noqa: ANN401 - any frame library's type
        *,
        treatment: str,
        outcome: str,
        confounders: Sequence[str] | None,
        graph: CausalGraph | None,
        options: dict[str, Any],
    ) -> None:
        import narwhals as nw

        table = open_table(frame)
        self.result: EffectResult = estimate_effect(
            frame, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph, **options
        )
        chosen, _ = choose_confounders(
            table, treatment=treatment, outcome=outcome, confounders=confounders, graph=graph
        )
        self.frame = nw.from_native(frame, eager_only=True)
        self.table = table
        self.treatment, self.outcome = treatment, outcome
        self.confounders: tuple[str, ...] | None = None if chosen is None else tuple(chosen)
        self.options = options
        two = arms(table, treatment, treated=options.get("treated"), control=options.get("control"))
        self.treated: NDArray[np.bool_] = two.indicator
        raw = self.frame.get_column(treatment).to_list()
        self._levels = (
            raw[int(np.flatnonzero(~two.indicator)[0])],
            raw[int(np.flatnonzero(two.indicator)[0])],
        )

    def estimate(
        self,
        frame: Any = None,  # noqa: ANN401 - any frame library's type
        *,
        outcome: str | None = None,
        confounders: Sequence[str] | None = None,
        **changes: Any,  # noqa: ANN401 - options of `estimate_effect`
    ) -> EffectResult:
        """Estimate with something changed; the rest as before, without asking the graph again."""
        return estimate_effect(
            self.frame.to_native() if frame is None else frame,
            treatment=self.treatment,
            outcome=self.outcome if outcome is None else outcome,
            confounders=self.confounders if confounders is None else tuple(confounders),
            **{**self.options, **changes},
        )

    def try_estimate(self, frame: Any, **changes: Any) -> EffectResult | str:  # noqa: ANN401
        """Estimate, or say why it cannot be done."""
        try:
            return self.estimate(frame, **changes)
        except WhypromptError as error:
            return error.message

    def with_arm(self, indicator: NDArray[np.bool_]) -> Any:  # noqa: ANN401 - the caller's kind
        """Return the table with other arms."""
        import narwhals as nw

        values = [self._levels[int(flag)] for flag in indicator.tolist()]
        series = nw.new_series(
            self.treatment, values, self.frame.schema[self.treatment], backend=self.frame.implementation
        )
        return self.frame.with_columns(series).to_native()

    def with_column(self, name: str, values: NDArray[np.float64]) -> Any:  # noqa: ANN401 - the caller's kind
        """Return the table with a numeric column added."""
        import narwhals as nw

        series = nw.new_series(name, values.tolist(), nw.Float64, backend=self.frame.implementation)
        return self.frame.with_columns(series).to_native()

    def take(self, mask: NDArray[np.bool_]) -> Any:  # noqa: ANN401 - the caller's kind
        """Return some rows of the table."""
        return self.frame.filter(mask.tolist()).to_native()


def failed_share(failed: Sequence[str], draws: int, what: str) -> None:
    """Refuse to go on where too many draws failed, with the most frequent reason.

    Raises
    ------
    EstimationError
        If more than a fifth did.
    """
    if len(failed) > _MAX_FAILED * draws:
        reason = max(set(failed), key=list(failed).count)
        raise EstimationError(
            f"{len(failed)} of {draws} {what} could not be estimated: {reason}",
            hint="ask for a method that needs less (ipw, overlap), or give more rows",
        )


def two_sided(estimate: float, std_error: float | None) -> float | None:
    """Return a two-sided p-value by the normal distribution; None without a standard error."""
    from scipy import stats

    if std_error is None or not std_error > 0:
        return None
    return float(2 * stats.norm.sf(abs(estimate) / std_error))


def at_least(value: int, least: int, name: str) -> None:
    """Refuse a count that is too small, by its name."""
    if value < least:
        raise EstimationError(f"{name}={value}: at least {least} are needed")
