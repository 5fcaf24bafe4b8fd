"""Two arms of logs: the design that their items allow, and the estimate that it gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._words import counted, format_number
from whyprompt.answers.log_known import MEASURED, adjusted, named_columns, refuse_gaps, unclear_columns
from whyprompt.effects.arms import compare_arms
from whyprompt.effects.checks.balance import balance_table
from whyprompt.effects.effect import estimate_effect
from whyprompt.effects.gaps.bounds import missing_items, missing_rows
from whyprompt.effects.logged import of_the_treated
from whyprompt.effects.own_chances import near_none
from whyprompt.effects.result import EffectResult, effect_sentence
from whyprompt.errors import EstimationError
from whyprompt.results import with_holm
from whyprompt.trials.logs.adaptive import refuse_adaptive
from whyprompt.trials.logs.pairing import ENOUGH
from whyprompt.trials.logs.table import TAKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.effects.gaps.bounds import MissingByArm
    from whyprompt.results import Estimate
    from whyprompt.trials.logs.result import ReadTrials

    Bools = NDArray[np.bool_]

# What only a comparison of different rows takes: who asks for it wants one.
_ADJUSTS = {"confounders", "graph", "method", "estimand", "propensity", "std_error", "denominator"}
_CHANCE = "chance_of_treated"
# What an average may hide, and how many of it are looked at.
_PARTS = ("model", "task_type")
_MOST_PARTS = 20


class Pair:
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
                self.warnings += refuse_adaptive(self.found, self.two, self.treated)
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
        own = {*TAKEN, self.found.outcome, *unclear_columns(self.found)} - set(_PARTS)
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
            self._logged_chances()
            if len(self.found.arms) > 2:
                missing = missing_rows(self.is_treated, self.y, drawn=False)
                return self._among_many(options), missing
        if "propensity" not in asked:
            self.warnings += refuse_adaptive(self.found, self.two, self.treated)
        missing = missing_rows(
            self.is_treated, self.y, drawn=design == "randomized" and "propensity" not in asked
        )
        two = self.two.assign(**self.further(chances=asked.get("propensity") == _CHANCE))
        two = two[~np.isnan(self.y)]
        if design == "observational" and not {"confounders", "graph", "method", "propensity"} & set(options):
            made, said = adjusted(self.found, two, asked)
            self.warnings += said
            return made, missing
        if asked.get("confounders"):
            asked["confounders"] = named_columns(self.found, two, asked["confounders"])
            refuse_gaps(self.found, two, asked["confounders"], (self.treated, self.control))
        return estimate_effect(two, **asked), missing

    def _logged_chances(self) -> None:
        """Say that logged chances are used, and refuse those of one arm in every row."""
        got = self.two["propensity"].to_numpy(dtype=float)
        self.warnings.append(
            f"rows are weighed by the logged chances of their arms, {format_number(got.min())} to"
            f" {format_number(got.max())}"
        )
        if len(self.found.arms) > 2:
            return
        for rows, arm in ((self.is_treated, self.treated), (~self.is_treated, self.control)):
            if of_the_treated(got, rows):
                raise EstimationError(
                    f"the logged chances (propensity) are not of the arm that each trial got: they fit as the"
                    f" chance of {arm!r} in every trial",
                    hint=f"propensity='propensity', treated={arm!r} take them as that",
                )
        self.warnings += near_none(got, self.found.arms)

    def _among_many(self, options: Mapping[str, Any]) -> EffectResult:
        """Compare two of many arms by logged chances, which all rows together are held against."""
        found = self.found
        rows = found.frame[found.frame[found.outcome].notna()]
        many = compare_arms(
            rows,
            treatment="arm",
            outcome=found.outcome,
            reference=self.control,
            propensity="propensity",
            design="randomized",
            level=self.asked["level"],
            **options,
        )
        assert many.weights is not None
        here = rows["arm"].isin([self.treated, self.control]).to_numpy()
        row = many.contrast(self.treated, self.control)
        made = EffectResult(
            sentence="",
            treatment="arm",
            outcome=found.outcome,
            treated=self.treated,
            control=self.control,
            axis=f"difference in {found.outcome}, {self.treated} minus {self.control}",
            estimand=many.estimand,
            method=many.method,
            overall=replace(
                row, label="overall", p_adjusted=None, simultaneous_low=None, simultaneous_high=None
            ),
            level=many.level,
            ess_treated=many.ess[self.treated],
            ess_control=many.ess[self.control],
            assumptions=many.assumptions,
            warnings=many.warnings,
            std_error_method=many.std_error_method,
            settings={"distance": "chance of the arm that each row got"},
            treated_rows=(rows["arm"] == self.treated).to_numpy()[here],
            weights=many.weights[here],
        )
        return replace(made, sentence=effect_sentence(made, confounders=(), design="randomized"))

    def further(self, *, chances: bool) -> dict[str, Any]:
        """Give the chance of the treated arm, and how hard items were for arms that are not compared."""
        out: dict[str, Any] = {}
        frame, outcome = self.found.frame, self.found.outcome
        if chances:
            got = self.two["propensity"].to_numpy(dtype=float)
            out[_CHANCE] = np.where(self.is_treated, got, 1.0 - got)
        others = frame[~frame["arm"].isin([self.treated, self.control])]
        if len(others) and "difficulty" not in frame:
            mean = others.groupby("item_id")[outcome].mean()
            difficulty = -self.two["item_id"].map(mean).to_numpy(dtype=float)
            if not np.isnan(difficulty).any():
                out["difficulty"] = difficulty
        return out

    def _matched_words(self) -> str:
        """Say how the items under both arms differ from the others."""
        first = self.two[~self.two["item_id"].duplicated()]
        inside = self.both[self.item[~self.two["item_id"].duplicated().to_numpy()]]
        names = [n for n in MEASURED if n in first and first[n].dtype.kind in "if" and first[n].notna().all()]
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
