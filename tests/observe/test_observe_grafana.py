"""The files for Grafana and Prometheus: as their script writes them, of the form that both read, and about metrics that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from paper_every_record import write_every_record

from dashboards import DASHBOARDS, build
from icestream.observe.grafana.writing_out import SHIPPED
from icestream.observe.metrics import names
from icestream.observe.metrics.measured import base_name
from icestream.observe.queries import open_view

ALERTS = SHIPPED / "prometheus" / "alerts.yml"
CASES = Path(__file__).parent / "alerts_test.yml"


def shipped_dashboards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (SHIPPED / "dashboards").glob("*.json")}


def queries_of(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def alert_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def test_what_is_shipped_is_what_the_script_writes():
    found = {path.stem: path.read_text(encoding="utf-8") for path in (SHIPPED / "dashboards").iterdir()}
    assert found == {name: build(name) for name in DASHBOARDS}, "run: python scripts/dashboards.py"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_the_form_of_grafanas_own_model(name):
    dashboard = shipped_dashboards()[name]
    register_default_plugins()
    read = Dashboard.from_json(dashboard)
    assert json.loads(JSONEncoder().encode(read)) == dashboard  # a field that the model does not know would be lost
    assert read.schema_version == 41
    assert read.uid == f"icestream-{name}"
    assert [one["name"] for one in dashboard["templating"]["list"]][:2] == ["datasource", "session"]
    assert len(dashboard["panels"]) >= 7
    for panel in dashboard["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABC")[: len(letters)]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_beside_each_other(name):
    taken: set[tuple[int, int]] = set()
    for panel in shipped_dashboards()[name]["panels"]:
        place = panel["gridPos"]
        mine = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert max(x for x, _ in mine) < 24
        assert not mine & taken, panel["title"]
        taken |= mine


def test_every_query_and_rule_is_about_metrics_that_exist(tmp_path):
    with open_view(write_every_record(tmp_path / "every").session) as view:
        measured = {
            base_name(measure.metric)[0]
            for step in view.steps()
            for measure in view.catalog().shown(step.records.get("out")).measures
        }
    known = measured | {one.name for one in names.ALL}
    asked = [query for dashboard in shipped_dashboards().values() for query in queries_of(dashboard)]
    asked += [rule["expr"] for rule in alert_rules()]
    for query in asked:
        used = set(re.findall(r"icestream_\w+", query))
        assert used <= known, query
        assert used or query.startswith("up{")


def test_every_rule_has_a_case_in_which_it_speaks_and_all_say_what_is_wrong():
    rules = {rule["alert"]: rule for rule in alert_rules()}
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    spoken = {one["alertname"] for case in cases for one in case["alert_rule_test"] if one.get("exp_alerts")}
    assert spoken == set(rules)
    for rule in rules.values():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_what_starts_both_uses_the_files_that_are_there():
    compose = yaml.safe_load((SHIPPED / "compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        folders = [volume.partition(":")[0] for volume in service["volumes"] if volume.startswith("./")]
        assert folders
        assert all((SHIPPED / folder).is_dir() for folder in folders)
    scraped = yaml.safe_load((SHIPPED / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert all((SHIPPED / "prometheus" / name).is_file() for name in scraped["rule_files"])
    provider = yaml.safe_load((SHIPPED / "provisioning" / "dashboards" / "icestream.yml").read_text(encoding="utf-8"))
    inside = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["providers"][0]["options"]["path"] in inside
