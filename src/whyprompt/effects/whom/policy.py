"""Which arm for which item, and what choosing so is worth against one arm for all.

The arm of each row is chosen by an effect predicted from earlier folds, and judged by the row's own score: a
rule judged on the rows it was learned from would look better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._words import percent
from whyprompt.effects.measures import stated
from whyprompt.effects.whom.models import unshrunk
from whyprompt.effects.whom.words import caveat, with_interval
from whyprompt.errors import EstimationError
from whyprompt.results import Estimate, Result, unlisted
from whyprompt.stats.clusters import known_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from whyprompt.effects.whom.result import HeterogeneousEffects
    from whyprompt.effects.whom.scores import RowScores

    Floats = NDArray[np.float64]

_SHARES = tuple(k / 10 for k in range(1, 11))


@dataclass(frozen=True, kw_only=True)
class PromptPolicy(Result):
    """A choice of arm for each item, with its cross-fitted value.

    All figures are in units of the outcome, less what the treated arm costs. The overall estimate is the mean
    outcome of the choice, on the rows that it was judged on: those whose effect was predicted from earlier
    folds. The parts are the mean outcomes of the treated and of the control arm for all, and how much better
    the choice is than either: positive means better, also where lower is.

    Attributes
    ----------
    treatment, outcome, treated, control : str
    modifiers : tuple of str
        What the choice looks at.
    better : {"higher", "lower"}
        Which outcomes are wanted.
    cost : float
        Of the treated arm, a row, in units of the outcome.
    share_treated : float
        Rows for which the treated arm is chosen.
    curve : tuple of Estimate
        What the treated arm is worth, over giving it to none, per row of the whole table, when a share of the
        rows gets it, those predicted to gain most first.
    rows : RowScores
        The rows that it was made from; `judged` says which of them the choice was judged on.
    chosen : ndarray of bool
        Which of those judged get the treated arm.
    """

    overall: Estimate
    treatment: str
    outcome: str
    treated: str
    control: str
    modifiers: tuple[str, ...]
    better: str
    cost: float
    share_treated: float
    curve: tuple[Estimate, ...]
    rows: RowScores = unlisted()
    chosen: NDArray[np.bool_] = unlisted()

    @property
    def over_treated(self) -> Estimate:
        """How much better the choice is than the treated arm for all."""
        return self.parts[2]

    @property
    def over_control(self) -> Estimate:
        """How much better the choice is than the control arm for all."""
        return self.parts[3]

    def at_random(self, share: float) -> float:
        """Return what the treated arm is worth when a share of the rows, drawn at random, gets it.

        Parameters
        ----------
        share : float
            Of the rows.

        Returns
        -------
        float
            Over giving it to none, per row, as the points of `curve` are.
        """
        return share * (self.curve[-1].estimate or 0.0)

    def choose(self, frame: Any) -> tuple[str, ...]:  # noqa: ANN401 - any frame
        """Choose the arm of new items by the model fitted to all rows.

        Parameters
        ----------
        frame : DataFrame
            With the modifiers.

        Returns
        -------
        tuple of str
            One arm a row.

        Raises
        ------
        DataError
            If a modifier is absent, has missing values, or a level that was not seen.
        """
        gains = unshrunk(self.rows.model, self.rows.predict(frame))
        takes = _takes(gains, self.better, self.cost)
        return tuple(self.treated if t else self.control for t in takes.tolist())

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import interval_plot

        rows = [
            {"label": row.label, "estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}
            for row in (self.over_treated, self.over_control)
        ]
        title = f"what choosing item by item gains in {self.outcome}"
        return {"gain": lambda: interval_plot(rows, title=title)}


def _takes(predicted: Floats, better: str, cost: float) -> NDArray[np.bool_]:
    sign = 1.0 if better == "higher" else -1.0
    return np.asarray(sign * predicted > cost, dtype=bool)


def prompt_policy(
    found: HeterogeneousEffects, *, cost: float = 0.0, better: Literal["higher", "lower"] = "higher"
) -> PromptPolicy:
    """Choose the arm item by item, and say what that is worth.

    Parameters
    ----------
    found : HeterogeneousEffects
        From `heterogeneous_effects`.
    cost : float, default 0
        Of the treated arm, a row, in units of the outcome: it is chosen where its predicted gain exceeds it.
    better : {"higher", "lower"}, default "higher"
        Which outcomes are wanted.

    Returns
    -------
    PromptPolicy

    Raises
    ------
    EstimationError
        If the cost is not a finite number, or `better` is neither.

    Notes
    -----
    The default's predicted effects are drawn towards one number for all rows, and the choice goes by what its
    models say without it: on few rows that number is a guess, which every row would follow.
    The intervals are of the choices judged, which are by models of earlier folds. Of the rule that `choose`
    goes by, learned from all rows, they are none.

    References
    ----------
    Luedtke, A. R. and van der Laan, M. J. (2016). Statistical inference for the mean outcome under a possibly
    non-unique optimal treatment strategy. Annals of Statistics 44, 713-742.
    Athey, S. and Wager, S. (2021). Policy learning with observational data. Econometrica 89, 133-161.
    Yadlowsky, S. et al. (2025). Evaluating treatment prioritization rules via rank-weighted average treatment
    effects. Journal of the American Statistical Association 120 (the curve).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from whyprompt import heterogeneous_effects
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=400)
    >>> frame = pd.DataFrame({"item_id": np.tile(np.arange(400), 2), "hard": np.tile(hard, 2)})
    >>> frame["arm"] = np.repeat(["direct", "cot"], 400)
    >>> frame["score"] = np.r_[-hard, -hard + hard] + 0.5 * rng.normal(size=800)
    >>> shared = {"treatment": "arm", "treated": "cot", "control": "direct", "design": "paired"}
    >>> effects = heterogeneous_effects(frame, outcome="score", modifiers=["hard"], **shared)
    >>> policy = prompt_policy(effects)
    >>> policy.over_treated.ci_low > 0, policy.over_control.ci_low > 0
    (True, True)
    >>> policy.choose(pd.DataFrame({"hard": [-1.0, 1.0]}))
    ('direct', 'cot')
    """
    if better not in {"higher", "lower"}:
        raise EstimationError(f"better={better!r} is not known", hint="'higher' or 'lower'")
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not np.isfinite(cost):
        raise EstimationError(f"cost={cost!r} is no number", hint="in units of the outcome, 0 for none")
    sign = 1.0 if better == "higher" else -1.0
    rows, level = found.rows, found.level
    judged = rows.judged
    cluster = None if rows.cluster is None else rows.cluster[judged]
    chosen = _takes(rows.unshrunk[judged], better, cost)
    one, none = rows.arms[judged, 0] - sign * cost, rows.arms[judged, 1]
    size = float(np.abs(rows.arms).max())
    gain = sign * (one - none)

    def figure(name: str, values: Floats) -> Estimate:
        error, df, _ = known_error(values, cluster, size)
        if df is not None and cluster is None:
            # Rows on which two choices agree differ by nothing and say nothing of the spread.
            df = max(min(df, float((values != 0).sum()) - 1.0), 1.0)
        return stated(name, float(values.mean()), error, df, level=level, n_used=len(values))

    def mean(name: str, values: Floats) -> Estimate:
        """Of outcomes, of which zero is no hypothesis."""
        return replace(figure(name, values), p_value=None)

    def share(x: float) -> Estimate:
        # Rows with one prediction share what is left, as if it were drawn among them.
        ahead = rows.ahead[judged] if sign < 0 else 1.0 - rows.upto[judged]
        given = np.clip((x - ahead) / (rows.upto - rows.ahead)[judged], 0.0, 1.0)
        error, df, _ = known_error(given * gain, cluster, size)
        value = float((given * gain).mean())
        return stated(f"{x:.0%}", value, error, df, level=level, p_value=None, at=x)

    arms = (found.treated, found.control)
    made = PromptPolicy(
        overall=mean("item by item", np.where(chosen, one, none)),
        parts=(
            mean(f"always {arms[0]}", one),
            mean(f"always {arms[1]}", none),
            figure(f"over always {arms[0]}", np.where(chosen, 0.0, -gain)),
            figure(f"over always {arms[1]}", np.where(chosen, gain, 0.0)),
        ),
        level=found.level,
        treatment=found.treatment,
        outcome=found.outcome,
        treated=arms[0],
        control=arms[1],
        modifiers=found.modifiers,
        better=better,
        cost=float(cost),
        share_treated=float(chosen.mean()),
        curve=tuple(share(x) for x in _SHARES),
        assumptions=found.assumptions,
        warnings=found.warnings,
        sentence="",
        rows=rows,
        chosen=chosen,
    )
    return replace(made, sentence=_sentence(made, found))


def _sentence(made: PromptPolicy, found: HeterogeneousEffects) -> str:
    arms = (made.treated, made.control)
    by = ", ".join(made.modifiers)
    price = f", at a cost of {made.cost:g} a row for {arms[0]!r}," if made.cost else ""
    if made.share_treated in {0.0, 1.0}:
        only, other = arms if made.share_treated else arms[::-1]
        row = made.over_control if made.share_treated else made.over_treated
        return (
            f"By {by}{price} {only!r} is chosen for every row: nothing is gained by choosing item by item."
            f" Over always {other!r} it gains {with_interval(row)} in {made.outcome!r} ({percent(made.level)}"
            " interval)."
        ) + caveat(found, "The values")
    over = f"than always {arms[0]!r} and by {with_interval(made.over_control)} than always {arms[1]!r}"
    text = (
        f"Choosing by {by}{price} {arms[0]!r} is taken for {made.share_treated:.0%} of {found.n_judged} rows."
        f" That is better in {made.outcome!r} by {with_interval(made.over_treated)} {over}"
        f" ({percent(made.level)} intervals, each row's arm chosen by rows of earlier folds)."
    )
    ends = [row.ci_low is not None and row.ci_low > 0 for row in (made.over_treated, made.over_control)]
    if all(ends):
        text += " It is better than either arm for all."
    else:
        unsure = [f"always {arm!r}" for arm, certain in zip(arms, ends, strict=True) if not certain]
        text += f" It is not shown to be better than {' nor than '.join(unsure)}."
    return text + caveat(found, "The values")
