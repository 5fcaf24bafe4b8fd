"""The page's sections on logs: what they would have shown, and what an unmeasured cause could do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt import charts
from whyprompt._words import counted
from whyprompt.effects.checks.hidden import sensitivity_report
from whyprompt.effects.headline import method_words
from whyprompt.errors import EstimationError
from whyprompt.page.blocks import Cell, Text, details, draw, interval, num, p_value, table
from whyprompt.page.external import overlap_blocks

if TYPE_CHECKING:
    import pandas as pd

    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block, Section
    from whyprompt.page.external import Material


def logs(m: Material) -> list[Block]:
    """Show what one would have found with one arm an item."""
    e = m.effect
    if e.draw is None:
        return []
    drawn = e.draw
    blocks: list[Block] = [
        Text(
            "Logs hold one arm an item, and something decided which. To see what that does, one arm of "
            f"each item was hidden by a stated rule ({_rule(m)}), and the rest was analysed as logs are."
        ),
        Text(drawn.sentence),
        draw("draw", "One draw: plain, adjusted, and true", lambda w: charts.draw_plot(drawn, width=w)),
        table(
            "One draw",
            ("", "estimate", "from", "to"),
            [
                ("plain difference", *interval(drawn.naive)),
                (f"adjusted, by {method_words(drawn.adjusted.method)}", *interval(drawn.adjusted)),
                ("truth, same items", num(drawn.truth), "", ""),
                ("truth, all items", num(drawn.truth_all), "", ""),
            ],
            name="draw",
        ),
    ]
    if e.audit is not None:
        audited = e.audit
        blocks.append(Text(audited.sentence))
        lines = f"{counted(audited['draws'], 'draw')}; lines are the Monte Carlo error that so many leave."
        for what, words in (
            ("bias", "Bias of each method over the draws"),
            ("coverage", "How often each method's interval holds the truth"),
        ):
            known = [row.estimate if what == "bias" else row["coverage"] for row in audited.parts]
            if any(value is not None for value in known):
                blocks.append(
                    draw(
                        f"audit-{what}",
                        words,
                        lambda w, what=what: charts.audit_plot(audited, what=what, width=w),  # type: ignore[misc]
                        caption=lines if what == "bias" else "",
                    )
                )
        rows = [
            (
                row.label,
                num(row.estimate),
                num(row.std_error, digits=2),
                num(row["mean_std_error"]),
                num(row["rmse"]),
                num(row["coverage"]),
                f"{row['n_failed']} of {audited['draws']}",
            )
            for row in audited.parts
        ]
        blocks.append(
            table(
                f"Audit over {counted(audited['draws'], 'draw')}: {audited['rule']}",
                ("method", "bias", "its error", "mean std. error", "RMSE", "coverage", "no estimate"),
                rows,
                name="audit",
            )
        )
    text = "How far such an estimate can be trusted is looked at as that of logs would be:"
    blocks.append(Text(text))
    blocks.append(details("Overlap and balance in the draw", *overlap_blocks(drawn.adjusted, "draw")))
    return [*blocks, details("Sensitivity of the adjusted draw", *hidden_blocks(drawn.table, drawn.adjusted))]


def _rule(m: Material) -> str:
    if m.effect.audit is not None:
        return str(m.effect.audit["rule"])
    settings = m.study.effect.audit
    return "" if settings is None else ", ".join(f"{v:g} x {k}" for k, v in settings.assignment.items())


def sensitivity(m: Material) -> list[Block]:
    """Say what an unmeasured cause could do, where rows are compared and no lot decided their arms."""
    e = m.effect
    drawn = any(a.name == "exchangeability" and a.status == "holds" for a in e.main.assumptions)
    if m.paired or drawn or e.main.pictures:
        return []
    return hidden_blocks(e.frame[e.frame["arm"].isin([e.contrast.treated, e.contrast.control])], e.main)


def hidden_blocks(frame: pd.DataFrame, result: EffectResult) -> list[Block]:
    """Say what an unmeasured cause could do to an adjusted estimate of a table."""
    try:
        found = sensitivity_report(frame, result)
    except EstimationError as error:
        text = f"No sensitivity analysis can be made of this estimate: {error.message}."
        return [Text(text, "note")]
    blocks: list[Block] = [Text(check.sentence) for check in found.checks.values()]
    if found.not_done:
        blocks.append(Text("Not done: " + "; ".join(found.not_done) + "."))
    values = [part.estimate for part in found.checks["E-value"].parts] + [None]
    figures = [("E-value of the estimate", num(values[0])), ("E-value of the interval", num(values[1]))]
    pairs = found.checks.get("Rosenbaum bounds")
    if pairs is not None:
        figures.append(("hidden bias that undoes significance (gamma)", num(pairs.estimate)))
    r = found.checks.get("partial R2")
    if r is not None:
        figures += [
            ("robustness value", num(r["robustness_value"])),
            (f"robustness value at level {r['alpha']:g}", num(r["robustness_value_alpha"])),
            ("partial R² of the arm with the outcome", num(r["partial_r2"])),
        ]
    blocks.append(table("Key figures", ("", "value"), figures, name="sensitivity"))
    if pairs is not None:
        rows = [
            (
                b.label,
                p_value(b["p_lower"]),
                p_value(b["p_upper"]),
                num(b["effect_low"]),
                num(b["effect_high"]),
            )
            for b in pairs.parts
        ]
        blocks.append(
            details(
                "Rosenbaum bounds",
                table(
                    "Bounds on the p-value and the effect, by the odds that a hidden cause may change",
                    ("", "p from", "p to", "effect from", "effect to"),
                    rows,
                    name="rosenbaum",
                ),
            )
        )
    if r is not None and r.parts:
        blocks.append(_benchmarks(r.parts))
    return blocks


def _benchmarks(bounds: Any) -> Section:  # noqa: ANN401 - bounds by benchmarks
    rows = []
    for b in bounds:
        name = f"{b['times']:g} times {b['benchmark']}"
        # A bound of 1 says nothing: such a confounder could be the whole outcome.
        could = (Cell("no bound"), Cell(""), Cell("")) if b["r2_outcome"] >= 1 else interval(b)
        rows.append((name, num(b["r2_treatment"]), num(b["r2_outcome"]), *could))
    return details(
        "A confounder as strong as a measured one",
        table(
            "What the regression estimate could become",
            ("as strong as", "R² with the arm", "R² with the outcome", "estimate", "from", "to"),
            rows,
            name="benchmarks",
        ),
    )
