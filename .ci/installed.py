"""Is the wheel whole, and is it what runs? python installed.py WHEEL ENVIRONMENT."""

import sys
import zipfile
from pathlib import Path

import whyprompt as wp

wheel, environment = Path(sys.argv[1]), Path(sys.argv[2])
assert Path(wp.__file__).resolve().is_relative_to(environment.resolve()), wp.__file__

with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
wanted = ("py.typed", "cli/skill.md", "page/templates/page.html")
wanted = (*wanted, *(f"examples/{name}.csv" for name in ("log", "paired", "rollout", "texts")))
assert {f"whyprompt/{name}" for name in wanted} <= names, sorted(names)
assert any(name.endswith("licenses/LICENSE") for name in names), "the licence is missing"
assert not any(name.startswith(("tests/", "benchmarks/")) for name in names), "more than the package"

for name in wp.__all__:
    getattr(wp, name)
asked = {"treatment": "arm", "outcome": "score", "treated": "few_shot", "control": "direct"}
found = wp.estimate_effect(wp.load_example("paired"), **asked, design="paired")
assert (found.ci_low or 0.0) > 0.9, found.sentence
print(found)
