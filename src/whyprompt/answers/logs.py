"""From logs to an answer: the design that the logs allow, its estimate, and what was read on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number
from whyprompt.answers.apart import called, differences_of, one_treatment
from whyprompt.answers.missing import missing_words
from whyprompt.effects.arms import compare_arms
from whyprompt.effects.checks.balance import balance_table
from whyprompt.effects.effect import estimate_effect
from whyprompt.effects.gaps.bounds import missing_items, missing_rows
from whyprompt.errors import EstimationError
from whyprompt.results import with_holm
from whyprompt.trials.logs.adaptive import refuse_adaptive
from whyprompt.trials.logs.arms import arm_called
from whyprompt.trials.logs.pairing import ENOUGH
from whyprompt.trials.logs.table import TAKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.gaps.bounds import MissingByArm
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.results import Estimate
    from whyprompt.trials.logs.result import ReadTrials

    Bools = NDArray[np.bool_]

# What only a comparison of different rows takes: who asks for it wants one.
_ADJUSTS = {"confounders", "graph", "method", "estimand", "propensity", "std_error", "denominator"}
_CHANCE = "chance_of_treated"
# What an average may hide, and how many of it are looked at.
_PARTS = ("model", "task_type")
_MOST_PARTS = 20
# Of a text that is adjusted for.
_LEVELS = 50
_MEASURED = ("question_chars", "question_words", "numbers", "task_type", "difficulty")


def log_effect(
    found: ReadTrials,
    *,
    treated: str | None = None,
    control: str | None = None,
    reference: str | None = None,
    design: str | None = None,
    level: float = 0.95,
    **options: Any,  # noqa: ANN401 - of `estimate_effect`
) -> EffectResult | EffectsResult:
    r"""Estimate what one arm of logs changes against another, by the design that the logs allow.

    Items that both arms were run on are compared with themselves: all of them where nine tenths of either
    arm's are the other's too, else those that are, with the balance against the rest. Where no item is under
    both, logged chances are used as such; without them rows are compared, adjusted for what the question
    shows (its length, its numbers, its task, how other arms did on it).

    Parameters
    ----------
    found : ReadTrials
        Of `read_trials`.
    treated, control : str, optional
        The arms; the control is by default `found.reference`.
    reference : str, optional
        Compare every other arm with this one, adjusted for their number.
    design : {"paired", "randomized", "observational"}, optional
        In place of the one that the logs allow.
    level : float, default 0.95
        Of the intervals.
    **options
        Of `estimate_effect`, or of `compare_arms` with `reference`.

    Returns
    -------
    EffectResult
        Whose sentence says first what was read. ``result["missing"]`` has missingness by arm, its exact p
        and worst-case bounds, where an outcome is missing. `EffectsResult` with `reference` and several arms.

    Raises
    ------
    EstimationError
        If there are more than two arms and none is named, or arms were drawn with shares that follow what
        came out before and no chances were logged.

    References
    ----------
    Manski, C. F. (1990). Nonparametric bounds on treatment effects. American Economic Review 80, 319-323.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from whyprompt import read_trials
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> rows = [{"item_id": i, "arm": arm, "score": s} for i in range(4) for arm, s in (("a", 0), ("b", 1))]
    >>> _ = path.write_text("\n".join(map(json.dumps, rows)))
    >>> log_effect(read_trials(path)).estimate
    1.0
    """
    reference = None if reference is None else arm_called(found.arms, reference)
    if reference is not None and treated is None and len(found.arms) > 2:
        several = compare_arms(
            found.frame,
            treatment="arm",
            outcome=found.outcome,
            reference=reference,
            design=design or "paired",
            unit="item_id",
            level=level,
            **options,
        )
        sentence = f"{found.sentence}\n{several.sentence}"
        return replace(several, sentence=sentence, warnings=(*found.warnings, *several.warnings))
    pair = _Pair(found, *two_arms(found, treated, control or reference), level)
    chosen = design or pair.design(options)
    if design is None and chosen == "observational":
        pair.refuse_other_items()
    made, missing = pair.within_items(options) if chosen == "paired" else pair.between_rows(chosen, options)
    gone = missing_words(missing, made, treated=pair.treated, control=pair.control)
    same = " Both arms were sent the same prompts: this difference is noise, and no effect of a prompt."
    arms = (pair.control, pair.treated)
    one = one_treatment(differences_of(found, arms), arms, called(found))
    sentence = f"{found.sentence}\n{made.sentence}{gone}" + (same if found["same_prompts"] else "")
    sentence += f" {one}" if one else ""
    figures = {**made.figures, "read": found.sentence}
    if missing is not None:
        figures["missing"] = {k: v for k, v in missing._asdict().items() if v is not None}
    warnings = (*found.warnings, *pair.warnings, *made.warnings)
    return replace(made, sentence=sentence, warnings=warnings, figures=figures)


def two_arms(found: ReadTrials, treated: str | None, control: str | None) -> tuple[str, str]:
    """Settle which two arms are compared, where there is no doubt."""
    if len(found.arms) < 2:
        files = ", ".join(str(one["file"]) for one in found.sources if one["used"])
        left = [str(one["file"]) for one in found.sources if not one["used"]]
        raise EstimationError(
            f"{files}: all trials are of one arm: nothing differs that an arm could be"
            + (f"; left out, without a score: {', '.join(left)}" if left else ""),
            hint="give the log of the other arm too",
        )
    treated = None if treated is None else arm_called(found.arms, treated)
    control = None if control is None else arm_called(found.arms, control)
    if treated is not None and treated == control:
        raise EstimationError(f"the treated and the control arm are both {treated!r}")
    if len(found.arms) == 2:
        if treated is None:
            treated = next(name for name in found.arms if name != (control or found.reference))
        return treated, next(name for name in found.arms if name != treated)
    if treated is None or control is None:
        raise EstimationError(
            f"there are {len(found.arms)} arms: {', '.join(map(repr, found.arms))}",
            hint=f"name two, treated={found.arms[1]!r} and control={found.arms[0]!r}; or give"
            f" reference={found.arms[0]!r} to compare all others with it",
        )
    return treated, control


def compared_rows(found: ReadTrials, effect: EffectResult) -> pd.DataFrame:
    """Give the rows that an effect of rows compares, with what was measured of their items."""
    pair = _Pair(found, effect.treated, effect.control, effect.level)
    rows: pd.DataFrame = pair.two.assign(**pair.further(chances=False))[~np.isnan(pair.y)]
    return rows


class _Pair:
    """The trials of two arms, and how they are compared."""

    def __init__(self, found: ReadTrials, treated: str, control: str, level: float) -> None:
        self.found, self.treated, self.control = found, treated, control
        frame = found.frame
        rows = frame["arm"].isin([treated, control]).to_numpy()
        self.two: pd.DataFrame = frame if rows.all() else frame[rows]
        self.is_treated: Bools = self.two["arm"].to_numpy() == treated
        self.item = np.unique(self.two["item_id"].to_numpy().astype(str), return_inverse=True)[1]
        under = np.zeros((int(self.item.max()) + 1, 2), dtype=bool)
        under[self.item, self.is_treated.astype(int)] = True
        self.both: Bools = np.asarray(under.all(axis=1))
        self.share = float(self.both.sum() / max(1, *under.sum(axis=0)))
        self.y = self.two[found.outcome].to_numpy(dtype=float)
        self.asked: dict[str, Any] = {
            "treatment": "arm",
            "outcome": found.outcome,
            "treated": treated,
            "control": control,
            "level": level,
        }
        self.warnings: list[str] = []
        for arm, rows in ((treated, self.is_treated), (control, ~self.is_treated)):
            if np.isnan(self.y[rows]).all():
                why = ", ".join(f"{n} ({text})" for text, n in found.missing.get(arm, {}).items())
                raise EstimationError(
                    f"no trial of {arm!r} has an outcome: {why}", hint="run it again, or score its trials"
                )

    def design(self, options: Mapping[str, Any]) -> str:
        """Say which design the logs allow."""
        if _ADJUSTS & set(options):
            return "observational"
        chances = self.two["propensity"].notna() if "propensity" in self.two else np.zeros(1, dtype=bool)
        logged = bool(chances.all())
        if not logged and chances.any() and not self.both.any():
            raise EstimationError(
                f"{counted(int((~chances).sum()), 'trial has', 'trials have')} no logged chance of the arm"
                f" (propensity), and {int(chances.sum())} have one",
                hint="log the chance of each, or leave those without out",
            )
        if self.both.any() and (self.share >= ENOUGH or not logged):
            return "paired"
        return "randomized" if logged else "observational"

    def refuse_other_items(self) -> None:
        """Refuse arms that were run on data sets of their own: which of both is the cause no row can tell."""
        if self.both.any() or "task_type" not in self.two:
            return
        mine, other = (set(self.two["task_type"][self.is_treated == side].dropna()) for side in (True, False))
        if mine and other and not mine & other:
            raise EstimationError(
                f"{self.treated!r} was run on {_few(mine)} and {self.control!r} on {_few(other)}, without an"
                " item in common: what the prompt does and what the items do is one difference",
                hint="run both arms on the same items; or say design='observational' if the sets are alike",
            )

    def within_items(self, options: Mapping[str, Any]) -> tuple[EffectResult, MissingByArm | None]:
        """Compare items with themselves."""
        some = self.share < ENOUGH and bool(self.both.any())
        missing = missing_items(self.item, self.is_treated, self.y, absent=not some)
        if some:
            # Where most items have one arm, something chose it.
            if "propensity" not in self.two:
                refuse_adaptive(self.found, self.two, self.treated)
            self.warnings.append(self._matched_words())
        made = estimate_effect(self._by_items(options), design="paired", **self.asked, **options)
        return (made if {"by", "cluster"} & set(options) else self._by_parts(made)), missing

    def _by_items(self, options: Mapping[str, Any]) -> pd.DataFrame:
        """Give the trials; runs of several models, which are no repeats, as the mean of each item and arm."""
        cell = ["item_id", "arm"]
        if "by" in options or not self.two.duplicated([*cell, "rep"]).any():
            return self.two
        mean: dict[str, Any] = {
            self.found.outcome: self.two.groupby(cell, sort=False)[self.found.outcome].transform("mean")
        }
        return self.two.assign(**mean).drop_duplicates(cell)

    def _by_parts(self, made: EffectResult) -> EffectResult:
        """Add the effect under each model and in each kind of item, and say where it goes the other way."""
        rows: list[Estimate] = []
        own = {*TAKEN, self.found.outcome} - set(_PARTS)
        for name in (n for n in map(str, self.two) if n not in own and self.two[n].dtype.kind == "O"):
            levels = self.two[name].dropna().unique()
            if not 2 <= len(levels) <= _MOST_PARTS:
                continue
            for level in sorted(map(str, levels)):
                here = self.two[self.two[name].astype(str) == level]
                sides = [set(here["item_id"][here["arm"] == arm]) for arm in (self.treated, self.control)]
                row = _part(here, self.asked) if len(sides[0] & sides[1]) >= 2 else None
                if row is not None:
                    rows.append(replace(row, label=level, by=name))
        rows = list(with_holm(rows))
        seen = [r for r in rows if r.p_adjusted is not None and r.p_adjusted < 1 - made.level]
        turned = [r for r in seen if (r.estimate or 0.0) * made.estimate <= 0]
        if turned:
            listed = ", ".join(f"{r.by}={r.label} ({format_number(r.estimate)})" for r in turned)
            sentence = f"{made.sentence} The average hides that it goes the other way in {listed}."
            return replace(made, parts=tuple(rows), sentence=sentence)
        return replace(made, parts=tuple(rows))

    def between_rows(
        self, design: str, options: Mapping[str, Any]
    ) -> tuple[EffectResult, MissingByArm | None]:
        """Compare rows of the arms, by logged chances or adjusted for what is known of the items."""
        asked: dict[str, Any] = {**self.asked, "design": design, **options}
        if design == "randomized" and "propensity" not in options and "propensity" in self.two:
            asked["propensity"] = _CHANCE
            got = self.two["propensity"]
            self.warnings.append(
                f"rows are weighed by the logged chances of their arms, {format_number(got.min())} to"
                f" {format_number(got.max())}"
            )
        if "propensity" not in asked:
            refuse_adaptive(self.found, self.two, self.treated)
        missing = missing_rows(
            self.is_treated, self.y, drawn=design == "randomized" and "propensity" not in asked
        )
        two = self.two.assign(**self.further(chances=asked.get("propensity") == _CHANCE))
        two = two[~np.isnan(self.y)]
        if design == "observational" and not {"confounders", "graph", "method", "propensity"} & set(options):
            asked["confounders"] = self._measured(two)
            self.warnings.append(
                "no item was run under both arms: rows are adjusted for what was measured of the question"
                f" afterwards ({', '.join(asked['confounders'])}), and nothing says that this is all that"
                " decided the arm"
            )
        return estimate_effect(two, **asked), missing

    def further(self, *, chances: bool) -> dict[str, Any]:
        """Give the chance of the treated arm, and how hard items were for arms that are not compared."""
        out: dict[str, Any] = {}
        frame, outcome = self.found.frame, self.found.outcome
        if chances:
            if len(self.found.arms) > 2:
                raise EstimationError(
                    "logged chances of more than two arms do not give those of one of two",
                    hint="give the column with the treated arm's chance as propensity=",
                )
            got = self.two["propensity"].to_numpy(dtype=float)
            out[_CHANCE] = np.where(self.is_treated, got, 1.0 - got)
        others = frame[~frame["arm"].isin([self.treated, self.control])]
        if len(others):
            mean = others.groupby("item_id")[outcome].mean()
            difficulty = -self.two["item_id"].map(mean).to_numpy(dtype=float)
            if not np.isnan(difficulty).any():
                out["difficulty"] = difficulty
        return out

    def _measured(self, two: pd.DataFrame) -> list[str]:
        known = [name for name in _MEASURED if name in two and _tells(two[name])]
        if not known:
            raise EstimationError(
                f"no item was run under both {self.treated!r} and {self.control!r}, and the logs say nothing"
                " of the items that could be adjusted for",
                hint="run both arms on the same items; or say design='randomized' if a lot decided the arm",
            )
        return known

    def _matched_words(self) -> str:
        """Say how the items under both arms differ from the others."""
        first = self.two[~self.two["item_id"].duplicated()]
        inside = self.both[self.item[~self.two["item_id"].duplicated().to_numpy()]]
        names = [
            n for n in _MEASURED if n in first and first[n].dtype.kind in "if" and first[n].notna().all()
        ]
        n = f"{int(self.both.sum())} of {counted(len(self.both), 'item')} were run under both arms"
        seen = np.zeros((len(self.both), 2), dtype=bool)
        seen[self.item[~np.isnan(self.y)], self.is_treated[~np.isnan(self.y)].astype(int)] = True
        if (whole := int(seen.all(axis=1).sum())) < self.both.sum():
            return f"{n}, and {whole} have both outcomes: the effect is theirs, and need not be the others'"
        if not names or inside.all() or min(inside.sum(), (~inside).sum()) < 2:
            return f"{n}: the effect is theirs, and need not be the others'"
        table = balance_table(first[names].to_numpy(dtype=float), inside, np.ones(len(inside)), names=names)
        shown = ", ".join(
            f"{row.covariate} {'n/a' if row.smd_before is None else format_number(row.smd_before, digits=2)}"
            for row in table
        )
        return f"{n}: the effect is theirs; against the others they differ by (standardised): {shown}"


def _few(names: set[Any]) -> str:
    shown = sorted(map(repr, names))
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _part(rows: pd.DataFrame, asked: Mapping[str, Any]) -> Estimate | None:
    """Estimate within a part of the items, or under one model; None where no item has both outcomes."""
    try:
        made: EffectResult = estimate_effect(rows, design="paired", **asked)
    except EstimationError:
        return None
    return made.overall


def _tells(values: pd.Series[Any]) -> bool:
    """Say whether a column is known of all rows, varies, and has no more levels than can be adjusted for."""
    levels = values.nunique()
    return bool(values.notna().all()) and levels > 1 and (values.dtype.kind in "if" or levels <= _LEVELS)
