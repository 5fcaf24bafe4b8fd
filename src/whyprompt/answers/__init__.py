"""A study's trials, answered: the external and the internal level of one question.

The seam between the parts that know studies and stores (`whyprompt.trials`) and those that know neither
(`whyprompt.effects`, `whyprompt.mediation`). `whyprompt.charts` and `whyprompt.page` draw what is returned
here.
"""

from whyprompt.answers.external import StudyEffect
from whyprompt.answers.internal import HeadStudy, StudyMediation, load_mediation
from whyprompt.answers.verbs import run_effect, run_mediation

__all__ = [
    "HeadStudy",
    "StudyEffect",
    "StudyMediation",
    "load_mediation",
    "run_effect",
    "run_mediation",
]
