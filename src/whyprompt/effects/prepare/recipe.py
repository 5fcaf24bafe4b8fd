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

from whyprompt.charts import count_plot
from whyprompt.effects.prepare.steps import LEARNT, Step, apply_step, fit_step
from whyprompt.errors import DataError
from whyprompt.results import Estimate, Result, plain, unlisted
from whyprompt.tables import Column, open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Prepared(Result):
    """A prepared table and the recipe that made it.

    A step is a part: the number of values that it moved (winsorise), marked (flag), or recoded (all that are
    known, for the others), of `n_used` known ones; gaps stay gaps. Its note is the step's kind, and where the
    treatment was named its figure ``by_arm`` is that number in each arm.

    Attributes
    ----------
    frame : DataFrame
        Of the caller's kind, with the caller's rows in their order. Not part of `to_dict`.
    recipe : Recipe
        The fitted steps.
    n_rows : int
        Rows, before and after.
    """

    frame: Any = unlisted()
    recipe: Recipe
    n_rows: int

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        rows = [
            {"label": part.label, "value": count, "group": arm}
            for part in self.parts
            for arm, count in (part["by_arm"] if part.figures else {"": part.estimate}).items()
        ]
        return {"changes": lambda: count_plot(rows, title=self.axis)}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Fitted steps, in order; data that can be stored and applied to any table.

    Attributes
    ----------
    steps : tuple of Step
        In order, fitted.
    n_fitted : int
        Rows of the table that they were fitted on.
    """

    steps: tuple[Step, ...]
    n_fitted: int

    def apply(self, frame: Any, *, treatment: str | None = None) -> Prepared:  # noqa: ANN401
        """Apply the steps to a table; changes are counted by the `treatment`, which enters no step.

        Raises
        ------
        DataError
            If a column is absent, or has a level that the recipe was not fitted on.
        """
        return _run(frame, self.steps, treatment, n_fitted=self.n_fitted)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as values that JSON can hold."""
        return {
            "version": _VERSION,
            "n_fitted": self.n_fitted,
            "steps": [{f.name: plain(getattr(s, f.name)) for f in fields(s)} for s in self.steps],
        }

    def to_json(self) -> str:
        """Return the recipe as JSON, numbers to full precision."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read back what `to_json` gave.

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
            if kind not in LEARNT:
                raise DataError(
                    f"step {number} of the recipe is of the kind {kind!r}", hint=", ".join(LEARNT)
                )
            lacking = [k for k in ("column", "into", "settings", "words") if k not in item]
            lacking += [k for k in LEARNT[kind] if k not in item.get("settings", {})]
            if lacking:
                raise DataError(f"step {number} of the recipe ({kind}) has no {lacking[0]!r}")
            column, words, into = str(item["column"]), str(item["words"]), tuple(map(str, item["into"]))
            steps.append(Step(kind=kind, column=column, into=into, settings=item["settings"], words=words))
        return cls(steps=tuple(steps), n_fitted=int(raw.get("n_fitted", 0)))

    def __str__(self) -> str:
        lines = [f"Recipe of {len(self.steps)} steps, fitted on {self.n_fitted} rows of all arms together:"]
        lines += [f"  {k}. {step.words}" for k, step in enumerate(self.steps, start=1)]
        return "\n".join(lines)


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
    steps : sequence of Step
        In order, from ``Step.winsorise``, ``flag_outliers``, ``scale``, ``bin`` and ``code``; a step sees
        what the steps before it made.
    treatment : str, optional
        Column that no step may change, and by which changes are counted.
    outcome : str, optional
        Column that no step may change: what is done to an outcome changes the question.

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
    >>> from whyprompt.effects import Recipe, Step
    >>> frame = pd.DataFrame({"tokens": [10, 12, 11, 900], "task": ["math", "code", "math", "law"]})
    >>> steps = [Step.winsorise("tokens", at=(0, 100)), Step.code("task", reference="math")]
    >>> done = prepare_table(frame, steps)
    >>> done.frame.columns.tolist(), done.frame["tokens"].tolist()
    (['tokens', 'task_code', 'task_law'], [10.0, 12.0, 11.0, 100.0])
    >>> Recipe.from_json(done.recipe.to_json()) == done.recipe
    True
    """
    given: object = steps
    if not isinstance(given, list | tuple) or not all(isinstance(step, Step) for step in given):
        raise DataError(
            "steps is a list of steps, each a Step.winsorise, flag_outliers, scale, bin or code",
            hint="prepare_table(frame, [Step.winsorise('question_tokens')])",
        )
    if not steps:
        raise DataError(
            "the recipe has no step", hint="give Step.winsorise, flag_outliers, scale, bin or code"
        )
    for step in steps:
        for name, role in ((treatment, "treatment"), (outcome, "outcome")):
            if name is not None and name in (step.into or (step.column,)):
                raise DataError(
                    f"step {step.kind!r} would change the {role} {name!r}",
                    hint="a recipe prepares covariates; write to another column (into=) if you mean to",
                )
    return _run(frame, steps, treatment, n_fitted=None)


def _run(frame: Any, steps: Sequence[Step], treatment: str | None, *, n_fitted: int | None) -> Prepared:  # noqa: ANN401
    made: set[str] = set()
    wanted: list[str] = []
    for step in steps:
        if step.column not in made and step.column not in wanted:
            wanted.append(step.column)
        made |= set(step.into or (step.column,))
    table = open_table(frame)
    columns, n = table.read(wanted, role="preparation"), table.n_rows
    arm = np.empty(0) if treatment is None else table.labels(treatment, role="treatment")
    fitted: list[Step] = []
    parts: list[Estimate] = []
    levels = sorted(set(arm.tolist()))
    written: dict[str, NDArray[Any]] = {}
    dropped: list[str] = []
    for step in steps:
        if step.column not in columns:
            raise DataError(f"column {step.column!r} is used after the step that replaces it")
        column = columns[step.column]
        done = fit_step(step, column)
        out, changed = apply_step(done, column)
        for name in done.into:
            if name != done.column and (name in table.columns or name in written):
                raise DataError(
                    f"the step on {done.column!r} would overwrite column {name!r}",
                    hint="give another name: into=",
                )
        written |= out
        if done.kind == "code":
            dropped.append(done.column)
            del columns[done.column]
        for name, values in out.items():
            kind: Literal["number", "text"] = "text" if values.dtype == object else "number"
            columns[name] = Column(name=name, kind=kind, data=values, missing=column.missing)
        fitted.append(done)
        by_arm = {level: int(changed[arm == level].sum()) for level in levels}
        parts.append(
            Estimate(
                label=done.words,
                by=done.column,
                estimate=int(changed.sum()),
                n_used=n - column.n_missing,
                note=done.kind,
                figures={"by_arm": by_arm} if by_arm else {},
            )
        )
    import narwhals as nw

    result = table.written({k: v for k, v in written.items() if k not in dropped}, keep_types=False)
    if dropped:
        result = nw.from_native(result, eager_only=True).drop(dropped).to_native()
    recipe = Recipe(steps=tuple(fitted), n_fitted=n if n_fitted is None else n_fitted)
    return Prepared(
        frame=result,
        recipe=recipe,
        parts=tuple(parts),
        n_rows=n,
        axis="values changed",
        sentence=_sentence(parts, n, n_fitted),
    )


def _sentence(steps: Sequence[Estimate], n: int, n_fitted: int | None) -> str:
    parts = []
    for step in steps:
        words = step.label
        if counted := {"winsorise": "moved", "flag": "marked"}.get(step.note):
            words += f"; {step.estimate} values {counted}"
            if step.figures:
                words += f" ({', '.join(f'{count} in {arm!r}' for arm, count in step['by_arm'].items())})"
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
