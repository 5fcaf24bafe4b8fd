"""The small study, answered once for all tests of the report."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report_study import MANIFEST, make_frame, make_mediation, make_study


@pytest.fixture(scope="session")
def small():
    """Give the study, both levels of its answer, and the page made from them."""
    from whyprompt import study_effect
    from whyprompt.page.page import build_report

    study, frame = make_study(), make_frame()
    effect = study_effect(study, frame)
    mediation = make_mediation(frame)
    return SimpleNamespace(
        study=study,
        frame=frame,
        effect=effect,
        mediation=mediation,
        manifest=MANIFEST,
        page=build_report(effect, mediation, MANIFEST, study),
    )
