"""One self-contained page that a person hands to a colleague."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from markupsafe import Markup

from whyprompt._files import read_json, whole_file
from whyprompt.answers.texts import study_answers
from whyprompt.charts import render
from whyprompt.effects.headline import question as asked
from whyprompt.errors import DataError, StoreError, WhypromptError
from whyprompt.page import closing, external, internal, logs, texts
from whyprompt.page.blocks import Section, worded
from whyprompt.page.external import Material
from whyprompt.page.items import who
from whyprompt.page.panel import ATTENTION_BYTES, head_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from whyprompt.answers.external import StudyEffect
    from whyprompt.answers.internal import StudyMediation
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult
    from whyprompt.study import Study
    from whyprompt.trials.items.item import Item
    from whyprompt.trials.logs.result import ReadTrials

MAX_BYTES = 3_000_000
"""A page is smaller than this, so that it can be sent by mail."""

# No text of a page holds these, and a log may: controls, and marks that turn the direction of writing.
_UNSEEN = dict.fromkeys(
    [*{*range(32)} - {9, 10, 13}, 127, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)

# What gives no blocks does not apply, and is left out.
_PARTS = {
    "answer": ("The answer", external.answer),
    "effects": ("Effects", external.effects),
    "who": ("Items that changed", who),
    "heads": ("Inside the model: which heads carry it", internal.heads),
    "levels": ("The two levels joined", internal.levels),
    "texts": ("Between prompt and answer: what the chain carries", texts.texts),
    "answers": (texts.TITLE, texts.answers),
    "design": ("Design and data", external.design),
    "overlap": ("Overlap and balance", external.overlap),
    "sensitivity": ("Sensitivity", logs.sensitivity),
    "logs": ("If one had only logs", logs.logs),
    "limits": ("What may not be claimed", closing.limits),
    "reproduce": ("How to reproduce it", closing.reproduce),
}


def build_report(
    effect: StudyEffect,
    mediation: StudyMediation | None,
    manifest: Mapping[str, Any],
    study: Study,
    *,
    items: Sequence[Item] = (),
    words: Callable[[str], str] = str,
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
    items : sequence of Item, optional
        The study's: those that changed are shown with their right answers.
    words : callable, default `str`
        Puts assumptions and warnings into the words of where the page was asked for.

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
    material = Material(
        effect=effect,
        mediation=mediation,
        manifest=dict(manifest),
        study=study,
        items=items,
        answers=study_answers(study, effect),
    )
    gists = external.gists(material)
    sections = [
        Section(name, title, blocks, "answer" if name == "answer" else "part", gists.get(name, ""))
        for name, (title, part) in _PARTS.items()
        if (blocks := worded(part(material), words))
    ]
    title = " ".join(study.question.split()) or asked(effect.main)
    results = {
        "effect": effect.to_dict(),
        "mediation": None if mediation is None else mediation.to_dict(),
        **({} if material.answers[0] is None else {"answers": material.answers[0].to_dict()}),
    }
    page = _render(title, sections, results, head_data(mediation, room=ATTENTION_BYTES))
    size = len(page.encode())
    if size > MAX_BYTES:
        # Many heads and a long prompt: fewer heads keep their attention.
        room = max(0, ATTENTION_BYTES - (size - MAX_BYTES))
        page = _render(title, sections, results, head_data(mediation, room=room))
    return _small(
        page,
        hint="have fewer subgroups (effect.by), outcomes or arms in one study"
        if mediation is None
        else "sweep fewer contrasts, or report them in studies of their own",
    )


def _small(page: str, *, hint: str) -> str:
    """Give a page that can be sent by mail."""
    size = len(page.encode())
    if size > MAX_BYTES:
        raise WhypromptError(
            f"the page would have {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g}", hint=hint
        )
    return page


def _render(
    title: str, sections: list[Section], results: Mapping[str, Any], heads: Mapping[str, Any] | None
) -> str:
    from jinja2 import Environment, StrictUndefined

    folder = files("whyprompt.page") / "templates"
    texts = {
        name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    }
    # Text from models and studies is escaped by default; only our own markup is marked as safe.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(texts["page.html"]).render(
        title=title,
        sections=sections,
        drawn=render.can_render(),
        css=Markup(texts["page.css"]),  # noqa: S704 - a file of this package
        js=Markup(texts["page.js"]),  # noqa: S704 - a file of this package
        results=_json(results),
        heads=_json(heads),
    )


def _json(content: Any) -> Markup:  # noqa: ANN401 - nested plain values
    """Write JSON that may stand in a script element: a prompt can hold ``</script>``."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def write_report(
    study: str | Path | ReadTrials,
    folder: str | Path | EffectResult | EffectsResult,
    *,
    target: str | Path | None = None,
    words: Callable[[str], str] = str,
) -> Path:
    r"""Write the page of a study that was run, or of arms of logs.

    Parameters
    ----------
    study : str, Path or ReadTrials
        The study file; or logs, as `read_trials` has read them.
    folder : str, Path, EffectResult or EffectsResult
        Of the study's results: the internal level is shown where `whyprompt mediate` finished. Of logs their
        effect, from `log_effect`: of one arm against another, or of all others against a `reference`.
    target : str or Path, optional
        Where to write. Default: ``report.html``, in a study's folder, or of logs here.
    words : callable, default `str`
        Puts assumptions and warnings into the words of where they are read, as in ``result.summary``.

    Returns
    -------
    Path

    Raises
    ------
    StoreError
        If the study was not run, its manifest cannot be read, or the page cannot be written.
    DataError
        If the effect is of other logs, or the page would take the place of a log.
    InputError
        If a study's contrast cannot be estimated.

    Examples
    --------
    >>> write_report("studies/few_shot.yaml", "runs/few_shot")  # doctest: +SKIP

    >>> import json, pathlib, tempfile
    >>> from whyprompt import log_effect, read_trials
    >>> log = pathlib.Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> rows = [{"item_id": i, "arm": arm, "score": s} for i in range(4) for arm, s in (("a", 0), ("b", 1))]
    >>> _ = log.write_text("\n".join(map(json.dumps, rows)))
    >>> found = read_trials(log)
    >>> write_report(found, log_effect(found), target=log.with_name("page.html")).name
    'page.html'
    """
    from whyprompt.effects.result import EffectResult
    from whyprompt.effects.several import EffectsResult

    if isinstance(study, str | Path):
        if isinstance(folder, EffectResult | EffectsResult):
            raise DataError("an effect is of logs, and a study's page is made of its folder of results")
        page, path = _study_page(study, Path(folder), words), Path(folder) / "report.html"
    else:
        if not isinstance(folder, EffectResult | EffectsResult):
            raise DataError(
                "the page of logs is made of the effect of one arm against another",
                hint="log_effect(found, treated=..., control=...), or reference=... for all others",
            )
        page, path = _log_page(study, folder, words), Path("report.html")
        target = path if target is None else target
        if Path(target).resolve() in {Path(str(one["file"])).resolve() for one in study.sources}:
            raise DataError(f"{target} is one of the logs", hint="give the page a name of its own")
    path = path if target is None else Path(target)
    elsewhere = "STUDY FILE" if isinstance(study, str | Path) else "LOG... --out FILE"
    with whole_file(path, hint=f"write it elsewhere: whyprompt report {elsewhere}") as file:
        file.write(page.encode())
    return path


def write_comparison(
    studies: Sequence[str | Path],
    folders: Sequence[str | Path],
    *,
    target: str | Path = "report.html",
    words: Callable[[str], str] = str,
) -> Path:
    """Write one page of two studies that were run: both answers, and whether their effects differ.

    Parameters
    ----------
    studies : sequence of str or Path
        Two study files.
    folders : sequence of str or Path
        Their folders of results.
    target : str or Path, default "report.html"
        Where to write.
    words : callable, default `str`
        Puts assumptions and warnings into the words of where they are read.

    Returns
    -------
    Path

    Raises
    ------
    StoreError
        If a study was not run, or the page cannot be written.
    DataError
        If there are not two of them, one is given twice, or the page would take the place of a study.

    Examples
    --------
    >>> write_comparison(["a.yaml", "b.yaml"], ["runs/a", "runs/b"])  # doctest: +SKIP
    """
    from whyprompt.answers.external import study_effect
    from whyprompt.answers.two_studies import compare_effects
    from whyprompt.page.of_two import two_sections
    from whyprompt.study import load_study
    from whyprompt.trials.run import load_trials

    if len(studies) != 2 or len(folders) != 2:
        raise DataError(f"two studies are compared, and {len(studies)} are given")
    if Path(studies[0]).resolve() == Path(studies[1]).resolve() and Path(folders[0]) == Path(folders[1]):
        raise DataError(
            f"{studies[0]} is given twice", hint="name the study that it is held against, or it alone"
        )
    path = Path(target)
    if path.resolve() in {Path(study).resolve() for study in studies}:
        raise DataError(f"{path} is one of the studies", hint="give the page a name of its own")
    plans = [load_study(study) for study in studies]
    effects = [
        study_effect(plan, load_trials(plan, folder)) for plan, folder in zip(plans, folders, strict=True)
    ]
    called = (plans[0].name, plans[1].name)
    names = called if called[0] != called[1] else (str(studies[0]), str(studies[1]))
    same = plans[0].items == plans[1].items and plans[0].seeds.items == plans[1].seeds.items
    compared = compare_effects(effects[0], effects[1], names=names, same_items=same)
    made = two_sections(compared, effects, plans, names=names, files=[str(study) for study in studies])
    sections = [replace(section, blocks=worded(section.blocks, words)) for section in made]
    title = f"Do {names[0]!r} and {names[1]!r} differ in their effect?"
    results = {
        "comparison": compared.to_dict(),
        "effects": {name: effect.to_dict() for name, effect in zip(names, effects, strict=True)},
    }
    page = _small(_render(title, sections, results, None), hint="have fewer subgroups (effect.by)")
    with whole_file(path, hint="write it elsewhere: whyprompt report STUDY STUDY --out FILE") as file:
        file.write(page.encode())
    return path


def _study_page(study: str | Path, folder: Path, words: Callable[[str], str]) -> str:
    from whyprompt.answers.external import study_effect
    from whyprompt.answers.internal import load_mediation
    from whyprompt.study import load_study
    from whyprompt.trials.items.load import items_of
    from whyprompt.trials.run import load_trials

    plan = load_study(study)
    frame = load_trials(plan, folder)
    return build_report(
        study_effect(plan, frame),
        load_mediation(plan, folder, frame),
        _manifest(folder),
        plan,
        items=items_of(plan).items,
        words=words,
    )


def _log_page(found: ReadTrials, effect: EffectResult | EffectsResult, words: Callable[[str], str]) -> str:
    from whyprompt.answers.compare import compare_runs
    from whyprompt.answers.logs import log_effect
    from whyprompt.answers.texts import FORMAT, answer_texts, with_features
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.changed import LISTED
    from whyprompt.page.of_logs import log_results, log_sections
    from whyprompt.page.of_many_logs import many_sections
    from whyprompt.trials.outcomes.features import LENGTH

    named = [(effect.treated, effect.control)] if isinstance(effect, EffectResult) else effect.pairs
    if effect.figures.get("read") != found.sentence or not {a for pair in named for a in pair} <= {
        *found.arms
    }:
        raise DataError("the effect is not of these logs", hint="log_effect(found)")
    of = [
        compare_runs(found, treated=one, control=other, level=effect.level, texts=LISTED)
        for one, other in named
    ]
    measured = with_features(found, (*LENGTH, *FORMAT))
    if isinstance(effect, EffectResult):
        title = asked(effect)
        through = [answer_texts(measured, effect)]
        sections = log_sections(of[0], effect, through[0])
    else:
        arms = [repr(arm) for arm, _ in named]
        others = f"{', '.join(arms[:-1])} or {arms[-1]}" if len(arms) < 5 else f"one of {len(arms)} arms"
        title = f"Does {others} instead of {effect.control!r} change {effect.outcome!r}?"
        design = str(effect.figures.get("design") or "") or None
        each = [
            # Of two named arms it is of these.
            cast(
                "EffectResult",
                log_effect(found, treated=one, control=other, design=design, level=effect.level),
            )
            for one, other in named
        ]
        through = [answer_texts(measured, one) for one in each]
        sections = many_sections(effect, list(zip(of, each, through, strict=True)))
    sections = [replace(section, blocks=worded(section.blocks, words)) for section in sections]
    page = _render(title, sections, log_results(of, effect, [made for made, _ in through]), None)
    # Half a character has no UTF-8, and what turns the direction of writing turns the page's own words too.
    page = page.encode("utf-8", "replace").decode().translate(_UNSEEN)
    return _small(page, hint="compare fewer logs, or fewer subgroups (by)")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    hint = "run the study again: whyprompt run STUDY"
    try:
        return read_json(path, hint=hint)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
