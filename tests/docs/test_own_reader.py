"""The reader of another's making that the page on logs shows: found by its entry point, it reads its logs."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import whyprompt as wp
from whyprompt.trials.readers import find

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "logs.md"


def test_the_reader_on_the_page_reads_its_logs(tmp_path, monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    code = re.search(r"```python\n# acme_reader\.py\n(.*?)```", page, re.DOTALL)[1]
    key, value = re.search(r'readers"\]\n(\w+) = "(\w+)"', page).groups()
    module = ModuleType(value)
    exec(code, module.__dict__)  # noqa: S102 - the code on our own page
    monkeypatch.setitem(sys.modules, value, module)
    entry = find.metadata.EntryPoint(key, value, find.GROUP)
    monkeypatch.setattr(find.metadata, "entry_points", lambda **_: [entry])
    find.readers.cache_clear()
    log = tmp_path / "run.jsonl"
    rows = [
        {"acme_run": 1, "case": f"c{k}", "ask": f"{k} + 1 = ?", "variant": arm, "ok": arm == "long" or k < 2}
        for k in range(6)
        for arm in ("short", "long")
    ]
    log.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    try:
        found = wp.read_trials(log)
    finally:
        find.readers.cache_clear()
    assert found.sources[0]["format"] == "Acme"
    assert (found.arms, found.outcome, found.pairing.matched) == (("short", "long"), "passed", 6)
    assert wp.log_effect(found, control="short").estimate == (6 - 2) / 6
