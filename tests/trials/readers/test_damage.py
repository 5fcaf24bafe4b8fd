"""Real logs with a byte, a value or a file changed: read as far as they can be, or refused by their name."""

import json
import random
import re
import shutil

import pandas as pd
import pytest

from whyprompt.errors import DataError
from whyprompt.trials.readers import every_eval_ever, helm, inspect_log, lm_eval
from whyprompt.trials.readers.every_eval_ever_write import write

VALUE = re.compile(r':\s*("(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\{|\[)')
OTHERS = ["null", "[]", "{}", "3", '"x"', "[1, 2]", '{"a": 1}', "true", "1e999", "-5", "[null]", '["a"]']


def changed(data, rng, *, is_json):
    """Cut off, with bytes that are others, or with a value that is of another kind."""
    if rng.random() < 0.15:
        return data[: rng.randrange(len(data))]
    if rng.random() < 0.2 or not is_json:
        out = bytearray(data)
        for _ in range(3):
            out[rng.randrange(len(out))] = rng.randrange(256)
        return bytes(out)
    text = data.decode("utf-8")
    place = rng.choice(list(VALUE.finditer(text)))
    new = rng.choice(OTHERS)
    return (
        text[: place.start(1)]
        + (new + ', "q": ' + place[1] if place[1] in "{[" else new)
        + text[place.end(1) :]
    ).encode()


@pytest.mark.parametrize("tool", ["inspect", "lm_eval", "helm", "every_eval_ever"])
def test_a_damaged_log_is_read_or_refused_by_name(shared_logs, tmp_path, tool):
    if tool == "every_eval_ever":
        rows = [
            {"item_id": f"i{k}", "arm": arm, "prompt": "p", "em": k % 2} for k in range(6) for arm in "ab"
        ]
        (aggregate,) = write(pd.DataFrame(rows), tmp_path / "made", outcomes=["em"], evaluation="e", when=0.0)
        reader, files = every_eval_ever, sorted(aggregate.parent.iterdir())
    else:
        reader, pattern = {
            "inspect": (inspect_log, "inspect_ai/[gs]*"),
            "lm_eval": (lm_eval, "lm_eval/*.json*"),
            "helm": (helm, "helm/*/*.json"),
        }[tool]
        files = sorted(shared_logs.glob(pattern))
    rng = random.Random(tool)  # noqa: S311 - the same damage in every run
    refused = []
    for k in range(60):
        folder = tmp_path / str(k)
        folder.mkdir()
        for file in files:
            shutil.copyfile(file, folder / file.name)
        victim = folder / rng.choice(files).name
        victim.write_bytes(changed(victim.read_bytes(), rng, is_json=victim.suffix != ".parquet"))
        for file in sorted(folder.iterdir()):
            head = file.read_bytes()[: 1 << 16]
            if not head or not reader.sniff(file, head):
                continue
            try:
                for log in reader.read(file):
                    for trial in log.trials():
                        for score in trial.scores.values():
                            assert score is None or isinstance(score, float)
                        texts = (trial.item, trial.question, trial.target, *trial.choices)
                        assert all(isinstance(text, str) for text in texts)
                        maybe = (
                            trial.prompt,
                            trial.completion,
                            trial.error,
                            trial.stop_reason,
                            trial.started_at,
                        )
                        assert all(text is None or isinstance(text, str) for text in maybe)
                        assert json.dumps(dict(trial.covariates))
            except DataError as error:
                refused.append((str(error), str(folder)))
        shutil.rmtree(folder)
    assert len(refused) > 5
    assert [said for said, folder in refused if folder not in said] == []
