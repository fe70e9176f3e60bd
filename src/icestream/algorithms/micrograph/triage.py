"""What kind of micrograph it is, by rules in a fixed order, each on one feature, with its bound in one table.

The kinds are those that microscopists sort by (Li, Cash, Tesmer & Cianfrocco 2020, Structure 28, 858), with film and streaks
apart. The first rule that is broken names the kind. Each rule also gives the probability that it is broken, a logistic function
of the distance from its bound in units of its softness, and the probability of a kind is that of its rule times that all rules
before hold (a continuation-ratio model: Fienberg 1980, The Analysis of Cross-Classified Categorical Data, ch. 6).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from icestream.algorithms.micrograph.features import MicrographFeatures
from icestream.records import MicrographKind

GOOD: tuple[MicrographKind, ...] = ("decent", "great")


@dataclass(frozen=True)
class Rule:
    """A kind is told by a feature that is above (or below) a bound.

    Attributes
    ----------
    softness
        Distance from the bound, in the unit of the feature or of its logarithm, at which the rule is broken with a probability
        of 73 %.
    logarithmic
        Whether distances are of logarithms, as for ratios without an upper end.
    says
        The reason, with the value and the bound to be put in.
    """

    kind: MicrographKind
    feature: str
    bound: float
    softness: float
    says: str
    above: bool = True
    logarithmic: bool = False

    def is_broken_by(self, value: float) -> bool:
        """Tell whether a value is on the side of the bound that names the kind."""
        return value > self.bound if self.above else value < self.bound

    def probability(self, value: float) -> float:
        """Return the probability that the rule is broken: 1/2 at the bound."""
        distance = float(np.log(max(value, 1e-12) / self.bound)) if self.logarithmic else value - self.bound
        signed = distance / self.softness if self.above else -distance / self.softness
        return float(1 / (1 + np.exp(-np.clip(signed, -50, 50))))


RULES: tuple[Rule, ...] = (
    Rule("no_ice", "signal_to_noise", 1.28, 0.1,
         "the strongest octave of the spectrum is {value:.2f} times the weakest, below {bound:.3g} there is only shot noise",
         above=False, logarithmic=True),
    Rule("crystalline_ice", "bragg_share", 0.15, 0.05,
         "{value:.0%} of the tiles have Bragg spots of ice, allowed are {bound:.0%}"),
    Rule("streaks", "anisotropy", 0.2, 0.03,
         "the spectrum is {value:.2f} one-sided, as drift and streaks make it, allowed are {bound:.3g}"),
    Rule("carbon", "film_share", 0.5, 0.05,
         "film covers {value:.0%} of the image, allowed are {bound:.0%}"),
    Rule("contamination", "dark_share", 0.1, 0.03,
         "dark objects cover {value:.0%} of the image, allowed are {bound:.0%}"),
    Rule("crystalline_ice", "mottle", 5.5, 0.2,
         "coarse mottle has {value:.1f} times the power of finer texture, allowed are {bound:.3g} times", logarithmic=True),
    Rule("bare_ice", "particle_evidence", 0.18, 0.2,
         "skewness times signal over noise is {value:.2f}, below {bound:.3g} it is that of ice without particles",
         above=False, logarithmic=True),
    Rule("great", "usable_signal", 2.3, 0.15,
         "signal to noise times usable share is {value:.2f}, great from {bound:.3g}", logarithmic=True),
)  # fmt: skip
"""The rules in their order. The bounds of shares are what is tolerated; that of great was chosen on six real images; the others
lie in gaps between simulated micrographs. docs/how-to/judge-a-micrograph.md says how."""


@dataclass(frozen=True)
class Judgement:
    """What a micrograph is: ``probability`` of each kind sums to 1, ``score`` is that of being worth keeping."""

    kind: MicrographKind
    score: float
    probability: dict[MicrographKind, float]
    reason: str


def replace_bounds(bounds: Mapping[str, float]) -> tuple[Rule, ...]:
    """Return the rules with other bounds, by name of the feature.

    Raises
    ------
    ValueError
        No rule is about a feature of that name.
    """
    unknown = set(bounds) - {rule.feature for rule in RULES}
    if unknown:
        raise ValueError(f"no rule about {sorted(unknown)}; there are rules about {[rule.feature for rule in RULES]}")
    return tuple(replace(rule, bound=bounds.get(rule.feature, rule.bound)) for rule in RULES)


def judge_micrograph(features: MicrographFeatures, *, rules: tuple[Rule, ...] = RULES, rings_seen: bool = False) -> Judgement:
    """Name the kind of a micrograph, how likely each kind is, and why; a feature that is unset breaks no rule.

    Where Thon rings were seen for certain there is something in the beam, and the micrograph is not called empty. They are no
    evidence against anything else: film, dirt and bare ice have them too.
    """
    left, first = 1.0, None
    probability: dict[MicrographKind, float] = dict.fromkeys((*(rule.kind for rule in rules), "decent"), 0.0)
    for rule in rules:
        value = read_feature(features, rule.feature)
        if value is None or (rings_seen and rule.kind == "no_ice"):
            continue
        broken = rule.probability(value)
        probability[rule.kind] += left * broken
        left *= 1 - broken
        if first is None and rule.is_broken_by(value):
            first = rule
    probability["decent"] = left
    score = sum(probability[kind] for kind in GOOD)
    if first is None:
        last = rules[-1]
        return Judgement("decent", score, probability, _say(last, features))
    return Judgement(first.kind, score, probability, _say(first, features))


def read_feature(features: MicrographFeatures, name: str) -> float | None:
    """Return a feature by its name."""
    value: float | None = getattr(features, name)
    return value


def _say(rule: Rule, features: MicrographFeatures) -> str:
    return rule.says.format(value=read_feature(features, rule.feature), bound=rule.bound)
