"""The rules that name the kind of a micrograph, and how well they do on real ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icestream.algorithms.micrograph.features import MicrographFeatures, measure_features_2d
from icestream.algorithms.micrograph.triage import GOOD, RULES, judge_micrograph, read_feature, replace_bounds
from icestream.io.image import read_image

GREAT = MicrographFeatures(
    signal_to_noise=4.0,
    mottle=0.6,
    bragg_share=0.0,
    bragg_spacing_ang=None,
    anisotropy=0.05,
    film_share=0.0,
    dark_share=0.01,
    skewness=-0.6,
    usable_share=0.98,
)


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({}, "great", "signal to noise times usable share is 3.92, great from 2.3"),
        ({"signal_to_noise": 2.2}, "decent", "signal to noise times usable share is 2.16, great from 2.3"),
        ({"signal_to_noise": 1.2}, "no_ice", "is 1.20 times the weakest, below 1.28 there is only shot noise"),
        ({"bragg_share": 0.62}, "crystalline_ice", "62% of the tiles have Bragg spots of ice, allowed are 15%"),
        ({"mottle": 12.0}, "crystalline_ice", "12.0 times the power of finer texture, allowed are 5.5 times"),
        ({"anisotropy": 0.4}, "streaks", "0.40 one-sided, as drift and streaks make it, allowed are 0.2"),
        ({"film_share": 0.8}, "carbon", "film covers 80% of the image, allowed are 50%"),
        ({"dark_share": 0.23}, "contamination", "dark objects cover 23% of the image, allowed are 10%"),
        ({"skewness": -0.01}, "bare_ice", "skewness times signal over noise is 0.03, below 0.18 it is that of ice without"),
        ({"skewness": 0.5}, "bare_ice", "skewness times signal over noise is 0.00"),
        ({"dark_share": 0.23, "mottle": 12.0}, "contamination", "dark objects"),
        ({"dark_share": 0.23, "signal_to_noise": 1.2}, "no_ice", "only shot noise"),
        ({"bragg_share": None}, "great", "great from"),
    ],
)
def test_the_first_rule_that_is_broken_names_the_kind(changes: dict[str, Any], kind: str, reason: str) -> None:
    judged = judge_micrograph(replace(GREAT, **changes))
    assert judged.kind == kind
    assert reason in judged.reason
    assert sum(judged.probability.values()) == pytest.approx(1)
    assert judged.score == pytest.approx(sum(judged.probability[each] for each in GOOD))
    assert (judged.score > 0.5) == (kind in GOOD)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.feature)
def test_a_rule_is_broken_with_even_odds_at_its_bound_and_with_73_percent_a_softness_beyond(rule) -> None:
    assert rule.probability(rule.bound) == pytest.approx(0.5)
    way = 1 if rule.above else -1
    beyond = rule.bound * 2.718281828 ** (way * rule.softness) if rule.logarithmic else rule.bound + way * rule.softness
    assert rule.probability(beyond) == pytest.approx(0.731, abs=0.001)
    assert rule.is_broken_by(beyond)
    assert not rule.is_broken_by(rule.bound)
    assert 0 <= rule.probability(-1e300) <= 1
    assert 0 <= rule.probability(1e300) <= 1


def test_bounds_can_be_others() -> None:
    dirty = replace(GREAT, dark_share=0.23)
    rules = replace_bounds({"dark_share": 0.3})
    assert judge_micrograph(dirty, rules=rules).kind == "great"
    assert [rule.kind for rule in rules] == [rule.kind for rule in RULES]
    with pytest.raises(ValueError, match=r"no rule about \['beauty'\]; .*dark_share"):
        replace_bounds({"beauty": 1.0})


def test_every_rule_reads_a_feature() -> None:
    assert all(read_feature(GREAT, rule.feature) is not None for rule in RULES)


def test_labelled_micrographs_are_kept_or_set_aside_as_experts_said(shared_data: Path) -> None:
    """No good one of six is lost, two bad ones of twelve are kept: what docs/how-to/judge-a-micrograph.md says of this set."""
    lost, kept = [], []
    for path in sorted((shared_data / "micrograph_quality_classes").glob("*/*.png")):
        features, _ = measure_features_2d(read_image(path))
        good = judge_micrograph(features).kind in GOOD
        if path.parent.name[0] in "01":
            lost += [path.name] if not good else []
        else:
            kept += [path.name[:8]] if good else []
    assert lost == []
    assert kept == ["19jun18a", "19nov08e"]


def test_labelled_micrographs_of_no_use_are_named_as_experts_did(shared_data: Path) -> None:
    named = {"2": ("contamination", "carbon", "streaks"), "3": ("no_ice",), "4": ("crystalline_ice",), "5": ("bare_ice",)}
    wrong = [
        path.name[:8]
        for path in sorted((shared_data / "micrograph_quality_classes").glob("[2-5]*/*.png"))
        if judge_micrograph(measure_features_2d(read_image(path))[0]).kind not in named[path.parent.name[0]]
    ]
    assert wrong == ["19jun18a", "19nov08e"]


def test_other_real_micrographs(shared_data: Path) -> None:
    ball, _ = measure_features_2d(read_image(shared_data / "contaminated_micrograph" / "Ucsf_stack_1142_DW.mrc"))
    assert judge_micrograph(ball).kind not in GOOD
    crowded = sorted((shared_data / "empiar10146_apoferritin" / "averages").glob("*.png"))
    assert len(crowded) == 8
    for path in crowded[:2]:
        features, _ = measure_features_2d(read_image(path))
        assert judge_micrograph(features).kind in GOOD, path.name
