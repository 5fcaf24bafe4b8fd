"""Sites of a model: their names, and effects of each against a plain loop of hooks."""

import pytest

from whyprompt.errors import MediationError
from whyprompt.mediation.engine.sites import KINDS, Site, as_site, check_names, every_site


def width(kind, layer):
    if kind == "neuron" and layer == 1:
        raise MediationError("layer 1 has experts")
    return {"head": 4, "neuron": 3}.get(kind, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_printed_as_it_is_read(kind):
    for site in (Site(kind, 0, 12), Site(kind, 31, 0)) if kind in {"head", "neuron"} else (Site(kind, 7),):
        assert as_site(str(site)) == as_site(site) == site
    assert as_site((3, 2)) == Site("head", 3, 2)


def test_names_stand_for_sites_of_a_model():
    def names(*given):
        return [str(site) for site in every_site(given, 2, width)]

    assert names("mlp", "head 1") == ["head 1.0", "head 1.1", "head 1.2", "head 1.3", "mlp 0", "mlp 1"]
    assert names("neuron 0", "resid 1", (0, 3)) == [
        "head 0.3",
        *(f"neuron 0.{i}" for i in range(3)),
        "resid 1",
    ]
    assert len(names("head", "attn", "mlp", "resid")) == 8 + 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["mlp 2"], "mlp 2 is out of range: the model has 2 layers"),
        (["head 0.4"], "head 0.4 is out of range: layer 0 of the model's 2 has 4 heads"),
        ([(-1, 0)], "head -1.0 is out of range"),
        (["mlp 1.3"], "'mlp 1.3' names no site"),
        (["layer 3"], "'layer 3' names no site"),
        (["neuron"], "'neuron' alone would be every neuron"),
        (["neuron 1"], "layer 1 has experts"),
        (["mlp", "mlp 1"], "sites names 'mlp 1' twice"),
        (["head", (1, 1)], "sites names 'head 1.1' twice"),
        ([(1, 2, 3)], r"\(1, 2, 3\) names no site"),
        ([7], "7 names no site"),
        ([], r"sites is \[\], not a list of names"),
        ("head", "sites is 'head', not a list of names"),
    ],
)
def test_what_names_no_site_is_refused(given, said):
    with pytest.raises(MediationError, match=said):
        every_site(given, 2, width)


def test_one_name_of_several_sites_is_no_site():
    for name in ("head", "mlp", "head 3", "neuron 3"):
        check_names([name])
        with pytest.raises(MediationError, match="names no single site"):
            as_site(name)
