"""One self-contained page that a person hands to a colleague."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from whyprompt._files import read_json, whole_file
from whyprompt.charts import render
from whyprompt.errors import DataError, StoreError, WhypromptError
from whyprompt.page import closing, external, internal, logs
from whyprompt.page.blocks import Section
from whyprompt.page.external import Material
from whyprompt.page.panel import ATTENTION_BYTES, head_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.answers.external import StudyEffect
    from whyprompt.answers.internal import StudyMediation
    from whyprompt.study import Study

MAX_BYTES = 3_000_000
"""A page is smaller than this, so that it can be sent by mail."""

_PARTS = {
    "answer": ("The answer", external.answer),
    "question": ("The question and the graph", external.question),
    "design": ("Design and data", external.design),
    "overlap": ("Overlap and balance", external.overlap),
    "effects": ("Effects", external.effects),
    "who": ("Who gains and who is harmed", external.who),
    "logs": ("If one had only logs", logs.logs),
    "sensitivity": ("Sensitivity", logs.sensitivity),
    "heads": ("Inside the model: which heads carry it", internal.heads),
    "levels": ("The two levels joined", internal.levels),
    "limits": ("What may not be claimed", closing.limits),
    "reproduce": ("How to reproduce it", closing.reproduce),
}


def build_report(
    effect: StudyEffect,
    mediation: StudyMediation | None,
    manifest: Mapping[str, Any],
    study: Study,
) -> str:
    """Write a study's page.

    Parameters
    ----------
    effect : StudyEffect
        The external level, from `study_effect`.
    mediation : StudyMediation or None
        The internal level, from `load_mediation`; None where it was not run.
    manifest : mapping
        Of the study's folder: model, versions, seeds, command.
    study : Study

    Returns
    -------
    str
        One HTML document without references to anything outside it.

    Raises
    ------
    DataError
        If `effect` or `mediation` is of another study.
    WhypromptError
        If the page would be larger than 3 MB.

    Examples
    --------
    >>> page = build_report(effect, None, manifest, study)  # doctest: +SKIP
    """
    for what, other in (("effect", effect), ("mediation", mediation)):
        if other is not None and other.study != study.name:
            raise DataError(f"{what} is of the study {other.study!r}, and the page is of {study.name!r}")
    material = Material(effect=effect, mediation=mediation, manifest=dict(manifest), study=study)
    sections = [Section(name, title, tuple(part(material))) for name, (title, part) in _PARTS.items()]
    page = _render(material, sections, room=ATTENTION_BYTES)
    size = len(page.encode())
    if size > MAX_BYTES:
        # Many heads and a long prompt: fewer heads keep their attention.
        room = max(0, ATTENTION_BYTES - (size - MAX_BYTES))
        page = _render(material, sections, room=room)
        size = len(page.encode())
    if size > MAX_BYTES:
        raise WhypromptError(
            f"the page would have {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g}",
            hint="have fewer subgroups (effect.by), outcomes or arms in one study"
            if mediation is None
            else "sweep fewer contrasts, or report them in studies of their own",
        )
    return page


def _render(material: Material, sections: list[Section], *, room: int) -> str:
    from jinja2 import Environment, StrictUndefined

    folder = files("whyprompt.page") / "templates"
    texts = {
        name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    }
    # Text from models and studies is escaped by default; only our own markup is marked as safe.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    results = {
        "effect": material.effect.to_dict(),
        "mediation": None if material.mediation is None else material.mediation.to_dict(),
    }
    return environment.from_string(texts["page.html"]).render(
        title=f"{material.study.name}: what the change of prompt causes",
        name=material.study.name,
        sections=sections,
        drawn=render.can_render(),
        css=Markup(texts["page.css"]),  # noqa: S704 - a file of this package
        js=Markup(texts["page.js"]),  # noqa: S704 - a file of this package
        results=_json(results),
        heads=_json(head_data(material.mediation, room=room)),
    )


def _json(content: Any) -> Markup:  # noqa: ANN401 - nested plain values
    """Write JSON that may stand in a script element: a prompt can hold ``</script>``."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def write_report(study: str | Path, folder: str | Path, *, target: str | Path | None = None) -> Path:
    """Write the page of a study that was run.

    Parameters
    ----------
    study : str or Path
        The study file.
    folder : str or Path
        Of its results. The internal level is shown where `whyprompt mediate` finished.
    target : str or Path, optional
        Where to write. Default: ``report.html`` in the folder.

    Returns
    -------
    Path

    Raises
    ------
    StoreError
        If the study was not run, or its manifest cannot be read.
    InputError
        If its contrast cannot be estimated.

    Examples
    --------
    >>> write_report("studies/few_shot.yaml", "runs/few_shot")  # doctest: +SKIP
    """
    from whyprompt.answers.external import study_effect
    from whyprompt.answers.internal import load_mediation
    from whyprompt.study import load_study
    from whyprompt.trials.run import load_trials

    plan = load_study(study)
    frame = load_trials(plan, folder)
    page = build_report(
        study_effect(plan, frame), load_mediation(plan, folder, frame), _manifest(Path(folder)), plan
    )
    path = Path(folder) / "report.html" if target is None else Path(target)
    with whole_file(path, hint="write it elsewhere: whyprompt report STUDY FILE") as file:
        file.write(page.encode())
    return path


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    hint = "run the study again: whyprompt run STUDY"
    try:
        return read_json(path, hint=hint)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
