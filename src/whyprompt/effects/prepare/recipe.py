"""Data preparation as one recorded recipe: fitted on the whole table, applied alike to every row.

Steps are named by the caller, in order. Fitting looks at all rows and never at the arm, so that the arms
cannot be coded, scaled or cut differently; the fitted recipe is data, goes to JSON and back, and gives any
other table the identical treatment. No step drops a row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt.effects.prepare.steps import Bin, Code, FittedStep, FlagOutliers, Scale, Winsorise, as_text
from whyprompt.errors import DataError
from whyprompt.results import Estimate, Result, plain, unlisted
from whyprompt.tables import Column, open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from whyprompt.effects.prepare.steps import Step

    Floats = NDArray[np.float64]

__all__ = [
    "Bin",
    "Code",
    "FittedStep",
    "FlagOutliers",
    "Prepared",
    "Recipe",
    "Scale",
    "Winsorise",
    "prepare_table",
]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Prepared(Result):
    """A prepared table and the recipe that made it.

    A step is a part: the number of values that it moved (winsorise), marked (flag), or recoded (all that are
    known, for the others), of `n_used` known ones; gaps stay gaps. Its note is the step's kind.

    Attributes
    ----------
    frame : DataFrame
        Of the caller's kind, with the caller's rows in their order. Not part of `to_dict`.
    recipe : Recipe
        The fitted steps.
    by_arm : mapping of str to tuple of int
        Values that each step changed in each arm, where the treatment was named.
    n_rows : int
        Rows, before and after.
    """

    frame: Any = unlisted()
    recipe: Recipe
    by_arm: Mapping[str, tuple[int, ...]]
    n_rows: int

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        from whyprompt.charts import count_plot

        every = {"": tuple(part.estimate for part in self.parts)}
        counts: Mapping[str, Sequence[float | None]] = self.by_arm or every
        rows = [
            {"label": part.label, "value": counts[arm][k], "group": arm}
            for k, part in enumerate(self.parts)
            for arm in counts
        ]
        return {"changes": lambda: count_plot(rows, title=self.axis)}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Fitted steps, in order; data that can be stored and applied to any table.

    Attributes
    ----------
    steps : tuple of FittedStep
        In order.
    n_fitted : int
        Rows of the table that they were fitted on.
    """

    steps: tuple[FittedStep, ...]
    n_fitted: int

    def apply(
        self,
        frame: Any,  # noqa: ANN401 - any frame library's type
        *,
        treatment: str | None = None,
    ) -> Prepared:
        """Apply the steps to a table.

        Parameters
        ----------
        frame : DataFrame
            pandas, polars or pyarrow. It is read and never written.
        treatment : str, optional
            Column by which changes are counted; it does not enter any step.

        Returns
        -------
        Prepared

        Raises
        ------
        DataError
            If a column is absent, or has a level that the recipe was not fitted on.
        """
        return _run(frame, list(self.steps), treatment, n_fitted=self.n_fitted)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as values that JSON can hold.

        Returns
        -------
        dict
        """
        return {
            "version": _VERSION,
            "n_fitted": self.n_fitted,
            "steps": [{f.name: plain(getattr(s, f.name)) for f in fields(s)} for s in self.steps],
        }

    def to_json(self) -> str:
        """Return the recipe as JSON, numbers to full precision.

        Returns
        -------
        str
        """
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read a recipe back.

        Parameters
        ----------
        text : str
            From `to_json`.

        Returns
        -------
        Recipe

        Raises
        ------
        DataError
            If the text is not a recipe of this version.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"the recipe is not JSON: {error}") from error
        if not isinstance(raw, dict) or raw.get("version") != _VERSION:
            found = raw.get("version") if isinstance(raw, dict) else type(raw).__name__
            raise DataError(f"expected a recipe of version {_VERSION}, found {found!r}")
        steps = []
        for number, item in enumerate(raw.get("steps", []), start=1):
            kind = item.get("kind") if isinstance(item, dict) else None
            if kind not in _NEEDS:
                raise DataError(
                    f"step {number} of the recipe is of the kind {kind!r}", hint=", ".join(_NEEDS)
                )
            lacking = [k for k in ("column", "into", "settings", "words") if k not in item]
            lacking += [k for k in _NEEDS[kind] if k not in item.get("settings", {})]
            if lacking:
                raise DataError(f"step {number} of the recipe ({kind}) has no {lacking[0]!r}")
            steps.append(
                FittedStep(
                    kind=kind,
                    column=str(item["column"]),
                    into=tuple(map(str, item["into"])),
                    settings=dict(item["settings"]),
                    words=str(item["words"]),
                )
            )
        return cls(steps=tuple(steps), n_fitted=int(raw.get("n_fitted", 0)))

    def __str__(self) -> str:
        lines = [f"Recipe of {len(self.steps)} steps, fitted on {self.n_fitted} rows of all arms together:"]
        lines += [f"  {k}. {step.words}" for k, step in enumerate(self.steps, start=1)]
        return "\n".join(lines)


_NEEDS = {
    "winsorise": ("low", "high"),
    "flag": ("low", "high"),
    "scale": ("centre", "scale"),
    "bin": ("cuts", "labels"),
    "code": ("levels",),
}


def prepare_table(
    frame: Any,  # noqa: ANN401 - any frame library's type
    steps: Sequence[Step],
    *,
    treatment: str | None = None,
    outcome: str | None = None,
) -> Prepared:
    """Fit a recipe on a whole table and apply it.

    Parameters
    ----------
    frame : DataFrame
        pandas, polars or pyarrow. It is read and never written.
    steps : sequence of Winsorise, FlagOutliers, Scale, Bin or Code
        In order; a step sees what the steps before it made.
    treatment : str, optional
        Column that no step may change, and by which changes are counted.
    outcome : str, optional
        Column that no step may change: what is done to an outcome changes the question.

    Returns
    -------
    Prepared

    Raises
    ------
    DataError
        If a column is absent or of the wrong kind, a step cannot be fitted, or a step would change the
        treatment or the outcome.

    References
    ----------
    Tukey (1977). Exploratory Data Analysis. Addison-Wesley (fences).
    Dixon (1960). Simplified estimation from censored normal samples. Annals of Mathematical Statistics 31
    (winsorising).

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"tokens": [10, 12, 11, 900], "task": ["math", "code", "math", "law"]})
    >>> done = prepare_table(frame, [Winsorise("tokens", at=(0, 100)), Code("task", reference="math")])
    >>> done.frame.columns.tolist(), done.frame["tokens"].tolist()
    (['tokens', 'task_code', 'task_law'], [10.0, 12.0, 11.0, 100.0])
    >>> Recipe.from_json(done.recipe.to_json()) == done.recipe
    True
    """
    kinds = (Winsorise, FlagOutliers, Scale, Bin, Code)
    given: object = steps
    if not isinstance(given, list | tuple) or not all(isinstance(step, kinds) for step in given):
        raise DataError(
            "steps is a list of steps, each a Winsorise, FlagOutliers, Scale, Bin or Code",
            hint="prepare_table(frame, [Winsorise('question_tokens')])",
        )
    if not steps:
        raise DataError("the recipe has no step", hint="give Winsorise, FlagOutliers, Scale, Bin or Code")
    for step in steps:
        for name, role in ((treatment, "treatment"), (outcome, "outcome")):
            if name is not None and (getattr(step, "into", None) or step.column) == name:
                raise DataError(
                    f"step {type(step).__name__} would change the {role} {name!r}",
                    hint="a recipe prepares covariates; write to another column (into=) if you mean to",
                )
    return _run(frame, list(steps), treatment, n_fitted=None)


def _run(
    frame: Any,  # noqa: ANN401 - any frame library's type
    steps: Sequence[Step | FittedStep],
    treatment: str | None,
    *,
    n_fitted: int | None,
) -> Prepared:
    made: set[str] = set()
    wanted: list[str] = []
    for step in steps:
        if step.column not in made and step.column not in wanted:
            wanted.append(step.column)
        made |= (
            set(step.into) if isinstance(step, FittedStep) else {getattr(step, "into", None) or step.column}
        )
    table = open_table(frame)
    columns, n = table.read(wanted, role="preparation"), table.n_rows
    arm = None if treatment is None else _arm_labels(frame, treatment)
    fitted: list[FittedStep] = []
    parts: list[Estimate] = []
    levels = [] if arm is None else sorted(set(arm.tolist()))
    by_arm: dict[str, list[int]] = {level: [] for level in levels}
    written: dict[str, NDArray[Any]] = {}
    dropped: list[str] = []
    for step in steps:
        if step.column not in columns:
            raise DataError(f"column {step.column!r} is used after the step that replaces it")
        column = columns[step.column]
        done = step if isinstance(step, FittedStep) else step.fit(column)
        out, changed = _apply(done, column)
        _refuse_overwriting(done, table.columns, written)
        written |= out
        if done.kind == "code":
            dropped.append(done.column)
            del columns[done.column]
        for name, values in out.items():
            gone = column.missing
            kind: Literal["number", "text"] = "text" if values.dtype == object else "number"
            columns[name] = Column(name=name, kind=kind, data=values, missing=gone)
        fitted.append(done)
        parts.append(
            Estimate(
                label=done.words,
                by=done.column,
                estimate=int(changed.sum()),
                n_used=n - column.n_missing,
                note=done.kind,
            )
        )
        for level in levels:
            by_arm[level].append(int(changed[arm == level].sum()))
    import narwhals as nw

    result = table.written({k: v for k, v in written.items() if k not in dropped}, keep_types=False)
    if dropped:
        result = nw.from_native(result, eager_only=True).drop(dropped).to_native()
    recipe = Recipe(steps=tuple(fitted), n_fitted=n if n_fitted is None else n_fitted)
    return Prepared(
        frame=result,
        recipe=recipe,
        parts=tuple(parts),
        by_arm={level: tuple(counts) for level, counts in by_arm.items()},
        n_rows=n,
        axis="values changed",
        sentence=_sentence(parts, by_arm, n, n_fitted),
    )


def _refuse_overwriting(step: FittedStep, columns: Sequence[str], written: Mapping[str, Any]) -> None:
    for name in step.into:
        if name != step.column and (name in columns or name in written):
            raise DataError(
                f"the step on {step.column!r} would overwrite column {name!r}",
                hint="give another name: into=",
            )


def _apply(step: FittedStep, column: Column) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    known = ~column.missing
    s = step.settings
    if step.kind == "code":
        text = as_text(column)
        levels = list(s["levels"])
        unseen = sorted({str(v) for v in text[known].tolist()} - set(levels))
        if unseen:
            raise DataError(
                f"column {step.column!r} has the level {unseen[0]!r}, which the recipe was not fitted on",
                hint=f"its levels are {', '.join(levels)}; fit the recipe on all rows, or remove these on"
                " purpose",
            )
        made = {
            name: np.where(known, (text == level).astype(float), np.nan)
            for name, level in zip(step.into, levels[1:], strict=True)
        }
        return made, known
    if column.kind == "text":
        raise DataError(f"column {step.column!r} is text here; the recipe was fitted on numbers")
    x: Floats = np.asarray(column.data, dtype=float)
    if step.kind == "winsorise":
        moved = np.clip(x, s["low"], s["high"])
        return {step.into[0]: moved}, known & (moved != x)
    if step.kind == "flag":
        out = (x < s["low"]) | (x > s["high"])
        return {step.into[0]: np.where(known, out.astype(float), np.nan)}, known & out
    if step.kind == "scale":
        return {step.into[0]: (x - s["centre"]) / s["scale"]}, known
    at = np.searchsorted(np.asarray(s["cuts"], dtype=float), np.where(known, x, 0.0), side="right")
    labels = np.asarray([*s["labels"]], dtype=object)[at]
    labels[~known] = None
    return {step.into[0]: labels}, known


def _arm_labels(frame: Any, treatment: str) -> NDArray[Any]:  # noqa: ANN401 - any frame library's type
    return open_table(frame).labels(treatment, role="treatment")


def _sentence(
    steps: Sequence[Estimate], by_arm: Mapping[str, Sequence[int]], n: int, n_fitted: int | None
) -> str:
    parts = []
    for k, step in enumerate(steps):
        counted = {"winsorise": "moved", "flag": "marked"}.get(step.note)
        words = step.label
        if counted:
            words += f"; {step.estimate} values {counted}"
            if by_arm:
                words += f" ({', '.join(f'{counts[k]} in {arm!r}' for arm, counts in by_arm.items())})"
        gaps = n - (step.n_used or 0)
        if gaps:
            words += f"; {gaps} gaps stay gaps"
        parts.append(words)
    fitted = (
        "fitted on all of them, whatever their arm,"
        if n_fitted is None
        else f"fitted before, on a table of {n_fitted} rows,"
    )
    return (
        f"{n} rows were prepared by {len(steps)} step(s), {fitted} and applied alike to each:"
        f" {'. '.join(parts)}. No row was dropped."
    )
