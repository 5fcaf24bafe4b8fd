"""A study's heads with the largest effects, taken apart: paths between them, interactions, all together."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from whyprompt._summary import parts_table
from whyprompt.answers.pairs import chosen_items, study_pairs
from whyprompt.mediation.relate import relation_sweep, top_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from whyprompt.answers.saved import Saved
    from whyprompt.mediation.engine.routes import Path
    from whyprompt.mediation.engine.runner import Tokens
    from whyprompt.results import Result
    from whyprompt.trials.models.local import LocalModel


def relate(
    lm: LocalModel, saved: Saved, frame: pd.DataFrame, report: Callable[[int, int, str], None]
) -> None:
    """Sweep what the study asks of the heads that its finished sweep ranks first, and keep it."""
    study, settings, contrast = saved.study, saved.settings, saved.contrasts[0]
    assert settings.relate is not None
    pairs = study_pairs(study, contrast, chosen_items(study, settings), lm.codec, frame)
    done = saved.outcomes(saved.relations)
    report(len(done), len(pairs), "paths")
    main = saved.sweep(contrast)
    sweep = relation_sweep(
        lm.model,
        pairs,
        top_heads(main, settings.relate),
        senders=settings.senders,
        along=cast("Sequence[Path]", settings.along),
        mediator=settings.paths,
        outcome=settings.outcome,
        tokens=cast("Tokens", main.tokens),
        done=done,
        on_pair=saved.keeper(saved.relations),
        progress=lambda done, total, _text: report(done, total, "paths"),
    )
    saved.finish(saved.relations, sweep)


def relation_table(found: Result) -> str:
    """Lay out its paths, what goes along those asked for, and its interactions as text."""
    rows = [row for row in found.parts if row.by.startswith(("path", "along", "interaction"))]
    return parts_table(rows, adjusted="family-wise")
