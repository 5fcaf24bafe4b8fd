"""Every result of mediation tells, tabulates, draws and stores itself as all results do."""

import json

import numpy as np
import pandas as pd
import planted
import pytest
from test_compare import world
from test_planted import pairs

from whyprompt import (
    compare_mediation,
    find_heads,
    infer_heads,
    layer_sweep,
    mediate,
    mediation_sensitivity,
    relate_heads,
)
from whyprompt.mediation import baron_kenny, contrast_mediations


def table():
    rng = np.random.default_rng(0)
    t = np.tile([0.0, 1.0], 40)
    m = t + rng.normal(size=80)
    return pd.DataFrame({"t": t, "m": m, "y": m + 0.5 * t + rng.normal(size=80)})


COLUMNS = {"treatment": "t", "mediator": "m", "outcome": "y"}
RESULTS = {
    "heads": lambda: infer_heads(world(n=10)[0]),
    "relations": lambda: relate_heads(planted.build({2: 1.0}), pairs(), heads=[(0, 1), (1, 2)]),
    "layers": lambda: infer_heads(layer_sweep(planted.build({2: 1.0}), pairs())),
    "search": lambda: find_heads(planted.build({2: 1.0}), pairs(), max_heads=2),
    "comparison": lambda: compare_mediation(*world(n=12)[:2], "reasoning", draws=50),
    "mediation": lambda: mediate(table(), **COLUMNS, draws=100),
    "contrast": lambda: contrast_mediations(*[mediate(table(), **COLUMNS, draws=100)] * 2),
    "sensitivity": lambda: mediation_sensitivity(table(), **COLUMNS, draws=20),
    "steps": lambda: baron_kenny(table(), **COLUMNS),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_a_result(name, shows_itself):
    result = RESULTS[name]()
    shows_itself(result)
    assert str(result) == result.sentence
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [part["label"] for part in told["parts"]] == [part.label for part in result.parts]
    assert told["level"] == 0.95
    assert len(result.to_frame()) > 0
    assert result.plot().to_dict()["description"]
    assert all(part.label in result.summary() for part in result.parts)
