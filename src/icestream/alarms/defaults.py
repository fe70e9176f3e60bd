"""The rules that hold where nobody has written any: what is wrong in any session, whatever the sample."""

from icestream.alarms.rules import (
    AgeingRule,
    AnyRule,
    BacklogRule,
    DiskRule,
    DriftRule,
    MeasureRule,
    RunnerLostRule,
    StalledRule,
    StepFailingRule,
    SystemRule,
    TransferRule,
    WorkerLostRule,
)

DEFAULT_RULES: tuple[AnyRule, ...] = (
    MeasureRule(name="ctf-resolution", measure="ctf_resolution_angstroms", high=10.0, window=20, count=10, clear_count=4),
    MeasureRule(
        name="ctf-defocus", measure="ctf_defocus_micrometers", low=0.1, high=4.0, margin=0.05, window=20, count=5, clear_count=1
    ),
    MeasureRule(name="ctf-astigmatism", measure="ctf_astigmatism_angstroms", high=2000.0, window=20, count=5, clear_count=1),
    DriftRule(name="ctf-resolution-drift", measure="ctf_resolution_angstroms", least_change=1.0),
    DriftRule(name="ctf-astigmatism-change", measure="ctf_astigmatism_angstroms", by="change_point", least_change=150.0),
    DriftRule(name="motion-drift", measure="motion_total_angstroms", least_change=3.0),
    MeasureRule(name="gain-unevenness", measure="gain_residual_unevenness_percent", high=4.0, window=1),
    MeasureRule(name="gain-spread", measure="gain_residual_spread_ratio", high=1.15, window=1),
    MeasureRule(name="gain-peak", measure="gain_residual_peak_ratio", high=4.5, window=1),
    AgeingRule(name="gain-ageing", measure="gain_residual_unevenness_percent"),
    SystemRule(name="memory", value="memory", high=95.0, margin=3.0, for_minutes=5),
    SystemRule(name="swap", value="swap", high=80.0, margin=5.0, for_minutes=10),
    SystemRule(name="gpu-temperature", value="gpu_temperature", high=90.0, margin=3.0, for_minutes=5),
    SystemRule(name="disk", value="disk", high=97.0, margin=1.0, for_minutes=1, severity="critical"),
    DiskRule(name="disk-full", severity="critical"),
    StalledRule(name="stalled", severity="critical"),
    StepFailingRule(name="step-failing", severity="critical"),
    BacklogRule(name="backlog"),
    WorkerLostRule(name="worker-lost", count=3),
    RunnerLostRule(name="runner-lost", severity="critical"),
    TransferRule(name="transfer", severity="critical"),
)
"""Limits of the CTF and of the gain are those of Scipion's monitors; those of the gain are ratios of quantiles of its pixels."""
