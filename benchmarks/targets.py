"""What each benchmark is to reach: the lines of docs/benchmarks.md, and where in a script's JSON line their figures are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One line of the page. ``figure`` and ``peer`` are paths in the JSON line, with dots."""

    part: str
    what: str
    result: str
    """Name of the file in ``results/``, without its suffix."""
    figure: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    peer: str | None = None
    beat_peer: bool = False
    """The figure must be below that of the peer, whether or not there is a limit too."""
    of_peer: float | None = None
    """The figure must be at most this part of that of the peer."""
    tried: str = ""
    """What was tried; a target that is missed must say it."""

    def allowed(self) -> str:
        """Return the target as people read it."""
        unit = f" {self.unit}" if self.unit else ""
        limits = [f"≤ {self.at_most:g}{unit}"] if self.at_most is not None else []
        limits += [f"≥ {self.at_least:g}{unit}"] if self.at_least is not None else []
        limits += ["below the peer"] if self.beat_peer else []
        return ", ".join(limits + ([f"≤ {self.of_peer:g} of the peer"] if self.of_peer is not None else []))

    def is_met(self, value: float, peer: float | None) -> bool:
        """Tell whether a figure reaches the target."""
        if (self.beat_peer or self.of_peer is not None) and peer is None:
            return False
        if peer is not None and (
            (self.beat_peer and not value < peer) or (self.of_peer is not None and value > self.of_peer * peer)
        ):
            return False
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)


SCRIPTS: dict[str, str] = {
    "apoferritin_session": "DATA NEW_FOLDER",
    "classify2d_quality": "",
    "ctf_accuracy": "",
    "ctf_calibration": "",
    "engine_latency": "",
    "engine_scale": "",
    "engine_throughput": "",
    "kill_session": "DATA NEW_FOLDER",
    "motion_accuracy": "--side 1024 --frames 30 --settings 6 --snr --relion --patches 1 3 5",
    "motion_sizes": "",
    "motion_speed": "--relion --patches 1 5",
    "newest_first": "",
    "picking_f1": "DATA",
    "picking_on_noise": "1000 10",
    "soak": "",
}
"""Every script that prints a figure, and the arguments it is run with; a script may come later than its line here."""

MOTION, CTF, ENGINE, OTHER = "Motion correction", "CTF", "Engine", "Particles and whole sessions"
_NO_RECORD = "What was tried is not on record."


def _ctf(result: str, estimator: str, name: str) -> list[Target]:
    """Return the lines of one estimator on the simulated microscope."""
    rows = (("defocus", "defocus_ang", "Å", 30.0, 150.0), ("astigmatism", "astigmatism_ang", "Å", 50.0, None))
    found = []
    for label, key, unit, median, p95 in rows:
        found.append(Target(CTF, f"{name}: {label}, median", result, f"{estimator}.{key}.median", unit, at_most=median))
        if p95 is not None:
            found.append(Target(CTF, f"{name}: {label}, 95th percentile", result, f"{estimator}.{key}.p95", unit, at_most=p95))
    angle = f"{name}: angle of astigmatism from 300 Å, median"
    return [*found, Target(CTF, angle, result, f"{estimator}.angle_deg.median", "°", at_most=5.0)]


_SHOT_NOISE = (
    "Noise sets it: on 1024² frames of 0.5 to 1.5 e/px the Cramér-Rao bound of the settings alone allows 0.937 at the worst, "
    "and 3 of the 4 settings below 0.95 are below it by their bound too. The fourth (57 frames, 0.66 e/px) keeps 0.948 of 0.966 "
    "that its bound allows; a milder penalty on the terms of the local model (1.5 for 3) gives it 0.951. Errors are 0.90 of the "
    "bound at the median for the global track, whose smoothness is used, and 1.01 of it for the local motion. Larger frames have "
    "more signal."
)


_BAND = (
    "One setting of 27 (23 frames, 0.74 e/px) keeps 0.949 of 0.980 that its bound allows. Whole frames are compared below 0.25 "
    "and patches below 0.4 cycles/px; the bound of the global track is 0.055 px with all frequencies, 0.061 px below 0.4, "
    "0.096 px below 0.25, and 0.083 px was reached. Nothing was tried yet."
)


def _random_motion(side: int) -> list[Target]:
    """Return the lines of motion over random settings of the simulated microscope."""
    result = "motion_accuracy_random" if side == 1024 else f"motion_accuracy_random_{side}"
    label = f"random settings, {side}²"
    errors = (("global motion per axis", "global_per_axis_px", 0.1), ("local motion", "local_px", 0.3))
    tried = _SHOT_NOISE if side == 1024 else _BAND
    snr, allowed = "snr_at_0.9_nyquist", "n_snr_below_0.95_where_noise_allows_it"
    return [
        *(
            Target(MOTION, f"{label}: {what}, {word}", result, f"{name}.{key}", "px", at_most=limit)
            for what, name, limit in errors
            for word, key in (("median", "median"), ("95th percentile", "p95"), ("worst", "worst"))
        ),
        Target(MOTION, f"{label}: settings whose local motion is worse than global", result, "local_worse_than_global", "", 0.0),
        Target(MOTION, f"{label}: signal-to-noise kept at 0.9 Nyquist, median", result, f"{snr}.median", "", at_least=0.95),
        Target(MOTION, f"{label}: the same, worst", result, f"{snr}.worst", "", at_least=0.95, tried=tried),
        Target(MOTION, f"{label}: settings below 0.95 where noise allows it", result, allowed, "", 0.0, tried=tried),
    ]


def _beats_relion(patches: int) -> list[Target]:
    peer = f"relion_{patches}x{patches}"
    label = f"{patches}×{patches} patches of RELION"
    one, both = "global_per_axis_px.median", "local_px.median"
    return [
        Target(
            MOTION, f"global motion per axis, {label}", "motion_accuracy", one, "px", 0.1, peer=f"{peer}.{one}", beat_peer=True
        ),
        Target(MOTION, f"local motion, {label}", "motion_accuracy", both, "px", 0.3, peer=f"{peer}.{both}", beat_peer=True),
    ]


TARGETS: tuple[Target, ...] = (
    *(line for patches in (1, 3, 5) for line in _beats_relion(patches)),
    Target(
        MOTION, "signal-to-noise of the sum against one with the true shifts, at 0.9 Nyquist: median", "motion_accuracy",
        "snr_to_true_shifts_at_0.9_nyquist.median", "", at_least=0.95,
    ),
    Target(MOTION, "the same: worst setting", "motion_accuracy", "snr_to_true_shifts_at_0.9_nyquist.worst", "", at_least=0.95),
    *(line for side in (1024, 2048) for line in _random_motion(side)),
    Target(
        MOTION, "4096² × 30, in forward transforms of its frames", "motion_speed", "times_the_transforms", "times", at_most=5.0
    ),
    Target(
        MOTION, "4096² × 30, with decoding and writing: RELION's CPU seconds over ours", "motion_speed", "relion_5x5.times_ours",
        "times", at_least=4.0,
        tried="Where the time goes: alignment and sum 12.4 s (3.95 times the transforms), decoding 1.93 s, "
        "writing 0.2 s. What else was tried is not on record.",
    ),
    Target(MOTION, "4096² × 30: memory", "motion_speed", "peak_gb", "GB", at_most=4.0),
    Target(MOTION, "4096² × 50, the step itself: memory", "motion_sizes", "cases.4096x4096 x 50.peak_gb", "GB", at_most=4.0),
    Target(MOTION, "4 to 1,000 frames, odd and not square: memory", "motion_sizes", "peak_gb", "GB", at_most=4.0),
    Target(MOTION, "8192² × 30: memory", "motion_sizes_8192", "cases.8192x8192 x 30.peak_gb", "GB", at_most=4.0),
    Target(
        MOTION, "8192² × 30, binned, cropped, with halves: memory", "motion_sizes_8192", "peak_gb", "GB", at_most=6.0
    ),
    *_ctf("ctf_accuracy", "first", "`ctf`"),
    *_ctf("ctf_accuracy", "second", "`ctf_equiphase`"),
    Target(CTF, "`ctf`, phase fitted: phase shift, median", "ctf_accuracy_phase", "first.phase_deg.median", "°", at_most=5.0),
    Target(CTF, "synthetic set, `ctf`: defocus, median", "ctf_accuracy_synthetic", "first.defocus_ang.median", "Å", at_most=30.0),
    Target(CTF, "synthetic set: defocus, 95th percentile", "ctf_accuracy_synthetic", "first.defocus_ang.p95", "Å", at_most=150.0),
    Target(
        CTF, "synthetic set: astigmatism, median", "ctf_accuracy_synthetic", "first.astigmatism_ang.median", "Å", at_most=50.0,
        tried="Weights by the noise of each frequency (version 2 of `ctf`). What else was tried is not on record.",
    ),
    Target(
        CTF, "against ASPIRE, 3 images: defocus, median", "ctf_accuracy_aspire", "first.defocus_ang.median", "Å",
        peer="aspire.defocus_ang.median", beat_peer=True,
    ),
    Target(
        CTF, "against ASPIRE, 3 images: astigmatism, median", "ctf_accuracy_aspire", "first.astigmatism_ang.median", "Å",
        peer="aspire.astigmatism_ang.median", beat_peer=True,
    ),
    Target(
        CTF, "against ASPIRE, `ctf`: CPU seconds", "ctf_accuracy_aspire", "first.cpu_s.median", "s",
        peer="aspire.cpu_s.median", of_peer=0.1,
    ),
    Target(
        CTF, "against ASPIRE, `ctf_equiphase`: CPU seconds", "ctf_accuracy_aspire", "second.cpu_s.median", "s",
        peer="aspire.cpu_s.median", of_peer=0.1, tried=_NO_RECORD,
    ),
    Target(ENGINE, "item-steps a second, 8 steps, 2 workers", "engine_throughput", "item_steps_per_s", "/s", at_least=500.0),
    Target(ENGINE, "the runner's CPU for an item-step", "engine_throughput", "runner_cpu_ms_per_item_step", "ms", at_most=2.0),
    Target(ENGINE, "file closed → last of 8 steps committed, 5 files/s: median", "engine_latency", "median_s", "s", at_most=0.25),
    Target(ENGINE, "50,000 exposures: open and resume", "engine_scale", "open_and_resume_s", "s", at_most=3.0),
    Target(ENGINE, "50,000 exposures: `status`", "engine_scale", "status_s", "s", at_most=3.0),
    Target(ENGINE, "50,000 exposures: memory of the runner", "engine_scale", "runner_rss_mb", "MB", at_most=500.0),
    Target(ENGINE, "50,000 exposures: store", "engine_scale", "store_gb", "GB", at_most=2.0),
    Target(
        ENGINE, "50,000 exposures: CPU for an item-step at the end", "engine_scale", "cpu_ms_per_item_step_at_last", "ms",
        at_most=2.0,
    ),
    Target(
        ENGINE, "backlog of 500: a new exposure, in times its steps take", "newest_first", "median_times_its_steps", "times",
        at_most=3.0,
    ),
)  # fmt: skip
