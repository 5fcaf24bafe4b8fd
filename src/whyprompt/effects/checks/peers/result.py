"""What a cross-check gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whyprompt._summary import grid, reach
from whyprompt._words import format_number
from whyprompt.results import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from whyprompt.results import Check, Estimate

__all__ = ["CrossCheck"]


@dataclass(frozen=True, kw_only=True)
class CrossCheck(Result):
    """DoWhy's and CausalML's figures beside ours.

    Attributes
    ----------
    parts : tuple of Estimate
        One tool's figure each, ours first; without an error and an interval where the tool gives none. Their
        figures, of those of the tools:

        - ``tool``, ``method`` and ``estimand`` (of ours as well);
        - ``compared_with``, our method that estimates the same, and ``difference`` from its estimate, the sum
          of the next three;
        - ``from_settings``: what our estimate changes by when our code takes the tool's settings (or its
          model), with our score; ``from_score``: when it takes the tool's propensity score as well;
        - ``unexplained``: what is left, zero where our code with the tool's score and settings gives the
          tool's figure; with ties, the choice among rows equally near;
        - ``tie_range``: of rows equally near a tool may take any, the smallest and the largest estimate that
          it could give;
        - ``why``: the same in words, with what else a reader should know; ``seconds``, the tool's own time.
    treatment, outcome, treated, control : str
    estimand : str
    confounders : tuple of str
    identification : Check or None
        Whether the graph says the same is to be adjusted for by both; `settings` hold the two sets. None
        without a graph.
    refuters : tuple of Estimate
        Of each refutation of the weighted estimate, the mean of the refuted estimates by each tool (`by`):
        DoWhy's with its p-value, small where the refutation fails; ours with the verdict as its note.
    uplift : tuple of Estimate
        By tool (`by`), what the treated arm gains a row when a share of the rows gets it, those predicted to
        gain most first. CausalML's: arms' means compared as they are, on the rows learned from. Ours: doubly
        robust, each row ranked by rows of earlier folds.
    versions : mapping of str to str
        Of the other environment.
    not_done : tuple of str
        What failed or does not apply, with the reason.
    """

    treatment: str
    outcome: str
    treated: str
    control: str
    estimand: str
    confounders: tuple[str, ...]
    identification: Check | None
    refuters: tuple[Estimate, ...]
    uplift: tuple[Estimate, ...]
    versions: Mapping[str, str]
    not_done: tuple[str, ...]

    def _blocks(self) -> list[str]:
        rows, words = [], []
        for row in self.parts:
            name = (row["tool"], row["method"])
            apart: list[Any] = [row.figures.get(k) for k in ("from_settings", "from_score", "unexplained")]
            rows.append(
                [
                    ": ".join(name),
                    row["estimand"].upper(),
                    format_number(row.estimate),
                    reach(row.ci_low, row.ci_high) if row.ci_low is not None else "none",
                    *("" if v is None else format_number(v) for v in apart),
                ]
            )
            if "why" in row.figures:
                words.append(f"  {', '.join(name)}: {'; '.join(row['why'])}.")
        header = ["tool", "of", "estimate", "interval", "by settings", "by score", "left"]
        return ["\n".join([grid(header, rows), "", *words])]

    def _charts(self) -> Mapping[str, Callable[[], Any]]:
        return {"estimates": self._estimates, "uplift": self._uplift}

    def _estimates(self) -> Any:  # noqa: ANN401 - a chart
        from whyprompt.charts import interval_plot

        rows = [
            {"label": row.label, "estimate": row.estimate, "low": row.ci_low, "high": row.ci_high}
            for row in self.parts
            if row.estimate is not None
        ]
        return interval_plot(rows, title=self.axis)

    def _uplift(self) -> Any:  # noqa: ANN401 - a chart
        from whyprompt.charts import uplift_plot
        from whyprompt.errors import EstimationError

        if not self.uplift:
            raise EstimationError(
                "there is no uplift curve",
                hint=next((t for t in self.not_done if t.startswith("uplift")), None),
            )
        ours = {point.at: point for point in self.uplift if point.by == "whyprompt"}
        rows = [
            {
                "share": point.at,
                "CausalML": point.estimate,
                "whyprompt": ours[point.at].estimate,
                "low": ours[point.at].ci_low,
                "high": ours[point.at].ci_high,
            }
            for point in self.uplift
            if point.by == "CausalML"
        ]
        return uplift_plot(rows, title=f"gain in {self.outcome} a row")
