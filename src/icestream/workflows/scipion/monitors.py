"""Scipion's monitors as rules of alarms: thresholds in our units, and whom it wrote to."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from icestream.alarms.document import AlarmsDocument
from icestream.alarms.rules import AnyRule, MeasureRule, SystemRule, SystemValue
from icestream.workflows.scipion.convert import AbsentError, Reader, UntranslatableError, as_range_um
from icestream.workflows.scipion.params import tell_lost
from icestream.workflows.scipion.publishing import tell_publishing
from icestream.workflows.scipion.rules import Lost

_OFF_FROM = 100.0
"""A load of so many per cent or more never raises an alarm; Scipion writes 101 for that."""
_WINDOW = 20
"""Scipion told every micrograph by itself; here an alarm goes on while one of so many is outside the limits."""

_CTF, _GAIN, _SYSTEM = "ctf", "gain", "system"
MONITORS: dict[str, tuple[str, ...]] = {
    "ProtMonitorCTF": (_CTF,),
    "ProtMonitorMovieGain": (_GAIN,),
    "ProtMonitorSystem": (_SYSTEM,),
    "ProtMonitorSummary": (_CTF, _GAIN, _SYSTEM),
}
"""Scipion's monitors, and what each watches."""

_ELSEWHERE = (
    Lost(
        "doInflux",
        (False, 0),
        "icestream metrics SESSION --influx --push URL --every 60 sends such numbers; icestream grafana writes dashboards",
    ),
)


@dataclass
class MonitorRules:
    """What became of a monitor."""

    rules: list[AnyRule] = field(default_factory=list)
    mail_to: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def read_monitor(reader: Reader) -> MonitorRules:
    """Return the rules of one monitor; what it does not say has no rule here, so that our default holds."""
    found = MonitorRules()
    makers = {_CTF: _ctf_rules, _GAIN: _gain_rules, _SYSTEM: _system_rules}
    for kind in MONITORS[reader.protocol.class_name]:
        for make in makers[kind]:
            try:
                found.rules.append(make(reader))
            except AbsentError:
                continue
            except UntranslatableError as error:
                found.notes.append(f"{error}; the default rule holds")
            except ValidationError as error:
                told = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                found.notes.append(f"{told}; the default rule holds")
    names = [rule.name for rule in found.rules]
    found.notes.insert(0, f"its thresholds are rules of alarms: {', '.join(names) or 'none, so that the defaults hold'}")
    _read_mail(reader, found)
    found.notes += [*tell_lost(reader.protocol, _ELSEWHERE), *tell_publishing(reader.protocol.raw)]
    return found


def join_rules(before: AlarmsDocument | None, found: MonitorRules) -> AlarmsDocument:
    """Return the rules of several monitors; the last one that says something holds."""
    rules = {rule.name: rule for rule in (() if before is None else before.rules)}
    rules |= {rule.name: rule for rule in found.rules}
    mail_to = dict.fromkeys((*(() if before is None else before.mail_to), *found.mail_to))
    return AlarmsDocument(rules=tuple(rules.values()), mail_to=tuple(mail_to))


def _defocus(reader: Reader) -> AnyRule:
    low, high = as_range_um(reader, ("minDefocus", "maxDefocus"))
    return MeasureRule(name="ctf-defocus", measure="ctf_defocus_micrometers", low=low, high=high, window=_WINDOW)


def _astigmatism(reader: Reader) -> AnyRule:
    high = reader.number("astigmatism")
    return MeasureRule(name="ctf-astigmatism", measure="ctf_astigmatism_angstroms", high=high, window=_WINDOW)


def _of_gain(name: str, measure: str, *parameters: str, factor: float = 1.0) -> Callable[[Reader], AnyRule]:
    def make(reader: Reader) -> AnyRule:
        known = [one for one in parameters if one in reader.protocol.values]
        if not known:
            raise AbsentError
        return MeasureRule(name=name, measure=measure, high=round(reader.number(known[0]) * factor, 6), window=1)

    return make


def _of_system(value: SystemValue, parameter: str) -> Callable[[Reader], AnyRule]:
    def make(reader: Reader) -> AnyRule:
        high = reader.number(parameter)
        if high >= _OFF_FROM:
            raise AbsentError
        return SystemRule(name=value, value=value, high=high, for_minutes=1)

    return make


_ctf_rules: tuple[Callable[[Reader], AnyRule], ...] = (_defocus, _astigmatism)
_gain_rules = (
    _of_gain("gain-unevenness", "gain_residual_unevenness_percent", "stddevValue", factor=100.0),
    _of_gain("gain-spread", "gain_residual_spread_ratio", "ratio1Value", "ratio1"),
    _of_gain("gain-peak", "gain_residual_peak_ratio", "ratio2Value", "ratio2"),
)
_system_rules = (_of_system("cpu", "cpuAlert"), _of_system("memory", "memAlert"), _of_system("swap", "swapAlert"))


def _read_mail(reader: Reader, found: MonitorRules) -> None:
    """Take over whom it wrote to; the mail server is a channel of the facility, which is no part of a workflow."""
    if not _flag(reader, "doMail"):
        return
    try:
        addresses = [one.strip() for one in reader.text("emailTo").replace(";", ",").split(",") if one.strip()]
        found.mail_to = AlarmsDocument.model_validate({"mail_to": addresses}).mail_to
    except AbsentError:
        found.notes.append("doMail: nobody is named in emailTo")
        return
    except (UntranslatableError, ValidationError):
        found.notes.append("emailTo is no list of addresses; add them as mail_to in alarms.yaml")
        return
    settings = {"host": _text(reader, "smtp"), "sender": _text(reader, "emailFrom")}
    server = ", ".join(f"{ours} {text}" for ours, text in settings.items() if text)
    found.notes.append(
        f"mail goes to {', '.join(found.mail_to)} through the mail server of the facility: "
        f"a channel of kind email in the file that ICESTREAM_ALARMS names{f' ({server})' if server else ''}"
    )


def _text(reader: Reader, name: str) -> str:
    try:
        return reader.text(name)
    except (AbsentError, UntranslatableError):
        return ""


def _flag(reader: Reader, name: str) -> bool:
    try:
        return reader.flag(name)
    except (AbsentError, UntranslatableError):
        return False
