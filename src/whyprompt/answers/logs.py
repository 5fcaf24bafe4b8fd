"""From logs to an answer: the design that the logs allow, its estimate, and what was read on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.answers.apart import called, differences_of, one_treatment
from whyprompt.answers.log_arms import against_reference
from whyprompt.answers.log_pair import Pair
from whyprompt.answers.missing import missing_words
from whyprompt.errors import EstimationError
from whyprompt.trials.logs.arms import arm_called

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.trials.logs.result import ReadTrials


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
        against = reference

        def pairs_at(level: float) -> list[tuple[EffectResult, str]]:
            others = (arm for arm in found.arms if arm != against)
            return [_pair_effect(found, arm, against, design, level, options) for arm in others]

        return against_reference(found, reference, pairs_at, design=design, level=level)
    made, said = _pair_effect(found, *two_arms(found, treated, control or reference), design, level, options)
    return replace(
        made,
        sentence=f"{found.sentence}\n{made.sentence}{said}",
        warnings=(*found.warnings, *made.warnings),
        figures={**made.figures, "read": found.sentence},
    )


def _pair_effect(
    found: ReadTrials,
    treated: str,
    control: str,
    design: str | None,
    level: float,
    options: Mapping[str, Any],
) -> tuple[EffectResult, str]:
    """Estimate one arm against another, and say what the logs add: what is missing, what is one treatment."""
    pair = Pair(found, treated, control, level)
    chosen = design or pair.design(options)
    if design is None and chosen == "observational":
        pair.refuse_other_items()
    made, missing = pair.within_items(options) if chosen == "paired" else pair.between_rows(chosen, options)
    said = missing_words(missing, made, treated=treated, control=control)
    if found["same_prompts"]:
        said += " Both arms were sent the same prompts: this difference is noise, and no effect of a prompt."
    arms = (control, treated)
    one = one_treatment(differences_of(found, arms), arms, called(found))
    figures = {**made.figures, "design": chosen}
    # What the verdict must know.
    figures |= {"same_prompts": 1.0} if found["same_prompts"] else {}
    figures |= {"one_treatment": 1.0} if one else {}
    if missing is not None:
        figures["missing"] = {k: v for k, v in missing._asdict().items() if v is not None}
    made = replace(made, warnings=(*pair.warnings, *made.warnings), figures=figures)
    return made, said + (f" {one}" if one else "")


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
    pair = Pair(found, effect.treated, effect.control, effect.level)
    rows: pd.DataFrame = pair.two.assign(**pair.further(chances=False))[~np.isnan(pair.y)]
    return rows
