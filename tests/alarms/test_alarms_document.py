"""What people write: rules and channels, errors that name rule, value and what is allowed, and who overrides whom."""

from pathlib import Path

import pytest

from icestream.alarms.defaults import DEFAULT_RULES
from icestream.alarms.document import (
    AlarmsDocument,
    FacilityAlarms,
    dump_alarms,
    make_policy,
    parse_session_alarms,
    read_facility_alarms,
    read_session_alarms,
    write_session_text,
)
from icestream.alarms.rules import RULE_KINDS, MeasureRule
from icestream.errors import SessionError
from icestream.files import SESSION_ALARMS

WHOLE = """
rules:
  - {name: thick, kind: measure, measure: ctf_defocus_micrometers, high: 3.5, severity: critical}
  - {name: load, kind: system, value: cpu, high: 98, for_minutes: 30}
without: [swap]
mail_to: [anna@lab.org]
repeat_minutes: 30
quiet:
  - {from: "22:00", to: "07:00", days: [friday, saturday]}
time_zone: Europe/Madrid
"""


def test_a_document_is_read_and_written_as_it_was():
    document = parse_session_alarms(WHOLE)
    assert [(rule.name, rule.kind) for rule in document.rules] == [("thick", "measure"), ("load", "system")]
    assert document.quiet is not None
    assert (document.quiet[0].start, document.quiet[0].end) == ("22:00", "07:00")
    assert parse_session_alarms(dump_alarms(document)) == document
    assert dump_alarms(AlarmsDocument()) == "{}\n"


@pytest.mark.parametrize(("text", "told"), [
    ("rules: [{name: a, kind: measure, measure: x}]", "rule 'a': needs low, high or both"),
    ("rules: [{name: a, kind: measure, measure: x, low: 3, high: 2}]", "rule 'a': low is 3 and must be below high, which is 2"),
    ("rules: [{name: a, kind: measure, measure: x, high: 1, window: 0}]",
     "rule 'a': window: input should be greater than or equal to 1 (got 0)"),
    ("rules: [{name: a, kind: measure, measure: x, high: 1, count: 30}]", "rule 'a': count is 30 and must be at most window"),
    ("rules: [{name: a, kind: system, value: cpus, high: 1}]", "rule 'a': value: input should be 'cpu', 'memory'"),
    ("rules: [{name: a, kind: mesure}]", "'mesure'"),
    ("rules: [{name: A b, kind: stalled}]", "rule 'A b': name: string should match pattern"),
    ("rules: [{kind: stalled}]", "rule 1: name: field required"),
    ("rules: [{name: a, kind: stalled, minuts: 3}]", "rule 'a': minuts: extra inputs are not permitted"),
    ("rules: [{name: a, kind: stalled}, {name: a, kind: stalled}]", "rule 'a' is there twice"),
    ("rules: 3", "rules: input should be a list"),
    ("quiet: [{from: '25:00', to: '07:00'}]", "'25:00' is no time of day"),
    ("mail_to: ['anna, bea@lab.org']", "mail_to"),
    ("mail_to: ['a@[b']", "mail_to"),
    ("mail_to: [':@x']", "mail_to"),
    ("mail_to: ['.@.']", "mail_to"),
    ("mail_to: ['a@=?utf-8?q?x=0ABcc:_b?=']", "mail_to"),
    ("mail_to: ['jörg@lab.org']", "mail_to"),
    ("channels: []", "channels: extra inputs are not permitted"),
    ("time_zone: Mars/Base", "'Mars/Base' is no time zone"),
    ("[1, 2]", "must be a map with rules in it"),
    ("rules: [", "is not YAML"),
])  # fmt: skip
def test_what_is_not_allowed_is_named(text, told):
    with pytest.raises(SessionError) as refused:
        parse_session_alarms(text)
    assert told in str(refused.value)
    assert str(refused.value).startswith(f"{SESSION_ALARMS}: ")


def test_a_session_adds_only_addresses_of_domains_that_the_facility_lists(tmp_path):
    session = parse_session_alarms("mail_to: [anna@Lab.org, boss@bank.example, x@evil.lab.org, staff@far.org]")
    policy = make_policy(FacilityAlarms(mail_domains=("lab.org",), mail_to=("staff@far.org",)), session)
    assert policy.mail_to == ("staff@far.org", "anna@Lab.org")
    assert policy.not_mailed == ("boss@bank.example", "x@evil.lab.org")
    assert "no mail goes to boss@bank.example, x@evil.lab.org: the facility does not list" in (policy.note or "")
    assert make_policy(FacilityAlarms(), session).mail_to == ()
    with pytest.raises(SessionError, match="no mail goes to anna@lab"):
        write_session_text(tmp_path, "mail_to: [anna@lab.org]", facility=None)
    assert not (tmp_path / SESSION_ALARMS).exists()


CHANNELS = """
mail_domains: [lab.org]
channels:
  - name: mail
    kind: email
    host: smtp.lab.org
    user: icestream
    password: {env: LAB_PASSWORD}
    sender: ice@lab.org
  - {name: chat, kind: webhook, format: slack, url: {file: /etc/icestream/slack}}
  - {name: pager, kind: command, command: [/usr/local/bin/page, --loud], least: critical}
  - {name: prometheus, kind: alertmanager, url: "http://localhost:9093"}
address: https://icestream.lab.org
rules:
  - {name: thick, kind: measure, measure: ctf_defocus_micrometers, high: 2.5, channels: [chat]}
without: [ctf-astigmatism]
"""


@pytest.fixture
def facility(tmp_path: Path) -> FacilityAlarms:
    (tmp_path / "facility.yaml").write_text(CHANNELS, encoding="utf-8")
    return read_facility_alarms(tmp_path / "facility.yaml")


def test_the_session_overrides_the_facility_and_both_the_defaults(facility):
    policy = make_policy(facility, parse_session_alarms(WHOLE))
    rules = {rule.name: rule for rule in policy.rules}
    assert isinstance(rules["thick"], MeasureRule)
    assert (rules["thick"].high, rules["thick"].channels) == (3.5, None)
    assert "load" in rules
    assert "ctf-defocus" in rules
    assert {"swap", "ctf-astigmatism"} & set(rules) == set()
    assert (policy.mail_to, policy.repeat_minutes, str(policy.zone)) == (("anna@lab.org",), 30, "Europe/Madrid")
    alone = make_policy(facility, AlarmsDocument(defaults=False))
    assert [rule.name for rule in alone.rules] == ["thick"]
    assert make_policy(FacilityAlarms(), AlarmsDocument()).rules == DEFAULT_RULES


def test_unknown_channels_and_rules_are_refused(facility):
    wrong = parse_session_alarms("rules: [{name: a, kind: stalled, channels: [chatt]}]")
    with pytest.raises(SessionError, match="rule 'a': channels: 'chatt' is not a channel of the facility; there are chat, mail"):
        make_policy(facility, wrong)
    with pytest.raises(SessionError, match="without: 'swop' is not a rule"):
        make_policy(facility, AlarmsDocument(without=("swop",)))


@pytest.mark.parametrize(("text", "told"), [
    ("channels: [{name: m, kind: email, host: h, sender: a@b, password: hunter2, user: x}]", "channel 'm': password"),
    ("channels: [{name: m, kind: email, host: h, sender: a@b, password: {env: X}}]", "user and password belong together"),
    ("channels: [{name: c, kind: command, command: 'rm -rf /'}]", "channel 'c': command: input should be a list"),
    ("channels: [{name: w, kind: webhook, url: 'https://hooks/x'}]", "channel 'w': url"),
    ("channels: [{name: w, kind: webhook, url: {env: X, file: y}}]", "needs file or env, and not both"),
])  # fmt: skip
def test_channels_hold_no_secrets_and_no_shell(tmp_path, text, told):
    path = tmp_path / "facility.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SessionError) as refused:
        read_facility_alarms(path)
    assert told in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")


def test_a_session_without_a_document_has_the_defaults(tmp_path):
    assert read_session_alarms(tmp_path) == AlarmsDocument()
    with pytest.raises(SessionError, match="cannot be read"):
        read_facility_alarms(tmp_path / "missing.yaml")


def test_the_default_rules_have_names_of_their_own_and_every_kind_is_listed():
    names = [rule.name for rule in DEFAULT_RULES]
    assert len(set(names)) == len(names)
    assert {type(rule) for rule in DEFAULT_RULES} <= set(RULE_KINDS)
