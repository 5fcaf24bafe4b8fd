"""From a study's arms to the prompt pairs that a sweep runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyprompt.errors import MediationError, StudyError
from whyprompt.mediation.pairs import pair_from_rendered
from whyprompt.study import Contrast
from whyprompt.trials.items.load import items_of
from whyprompt.trials.prompts import CHAIN_MARK, render

if TYPE_CHECKING:
    import pandas as pd

    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.study import MediationSettings, Study
    from whyprompt.trials.items.item import Item, ItemPool
    from whyprompt.trials.models.local import PromptCodec
    from whyprompt.trials.prompts import Prompt


def study_contrasts(study: Study, settings: MediationSettings) -> list[Contrast]:
    """Give all contrasts to sweep: the main one, the further ones, the placebo's."""
    main = settings.contrast or study.contrast
    out = [main, *settings.contrasts]
    if settings.placebo is not None:
        if settings.placebo not in study.arms:
            raise StudyError(
                f"mediation.placebo names the arm {settings.placebo!r}; the arms are {', '.join(study.arms)}"
            )
        out.append(Contrast(treated=settings.placebo, control=main.control))
    return list({(c.treated, c.control): c for c in out}.values())


def chosen_items(study: Study, settings: MediationSettings) -> list[Item]:
    """Give the items a sweep runs on: the first of every task family, as many as the study says."""
    items = items_of(study).items
    taken: dict[str, int] = {}
    out = []
    for item in items:
        if settings.tasks is not None and item.task_type not in settings.tasks:
            continue
        if taken.get(item.task_type, 0) < settings.items_per_task:
            taken[item.task_type] = taken.get(item.task_type, 0) + 1
            out.append(item)
    return out


def study_pairs(
    study: Study, contrast: Contrast, items: list[Item], codec: PromptCodec, frame: pd.DataFrame
) -> list[PromptPair]:
    """Render both arms of every item, as the first repetition of the study did.

    Prompts that do not end in one cue, or tokenise the answer differently, are a `MediationError`.
    """
    pool, out = items_of(study), []
    margin = study.mediation is not None and study.mediation.outcome == "margin"
    for item in items:
        prompts = [
            rendered(study, arm, item, pool, codec, frame) for arm in (contrast.control, contrast.treated)
        ]
        out.append(
            pair_from_rendered(
                codec,
                item_id=item.item_id,
                cluster=item.cluster or item.item_id,
                prompt0=prompts[0],
                prompt1=prompts[1],
                arms=(contrast.control, contrast.treated),
                foil=prompts[0].separator + _wrong_choice(item) if margin else None,
            )
        )
    return out


def _wrong_choice(item: Item) -> str:
    """Give an item's first choice that is not the answer."""
    wrong = [choice for choice in item.choices if choice != item.answer]
    if not wrong or item.answer not in item.choices:
        raise MediationError(
            f"item {item.item_id!r} has no wrong choice beside its answer, which mediation.outcome: margin "
            "needs",
            hint="name the column of choices: columns: {choices: ...}, or take another outcome",
        )
    return wrong[0]


def rendered(
    study: Study, arm: str, item: Item, pool: ItemPool, codec: PromptCodec, frame: pd.DataFrame
) -> Prompt:
    """Render one arm of an item as the study's first repetition did, with the chain that the model wrote."""
    prompt = render(item, study.arms[arm], name=arm, pool=pool, renderer=codec, seed=study.seeds.shots)
    if prompt.reasoning_first is None:
        return prompt
    # The model wrote this chain itself: it stands in the prompt that was sent.
    sent = frame.loc[
        (frame["item_id"] == item.item_id) & (frame["arm"] == arm) & (frame["rep"] == 0), "prompt"
    ]
    before, after = prompt.text.split(CHAIN_MARK)
    text = "" if sent.empty else str(sent.iloc[0])
    if not (text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after)):
        raise MediationError(
            f"item {item.item_id!r}, arm {arm!r}: the chain that the model wrote is not in the trial table",
            hint="run the study again: whyprompt run STUDY",
        )
    return prompt.with_chain(text[len(before) : len(text) - len(after)])
