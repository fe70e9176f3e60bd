from pathlib import Path
from typing import Any

import pytest
import yaml

from icestream.errors import WorkflowError
from icestream.flow.storage.session import create_session
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import StepSpec, Workflow
from icestream.workflows import fill_template, load_template, placeholders_schema, read_template
from icestream.workflows.export import choose_steps, dump_template, export_template
from icestream.workflows.implied import imply_template
from icestream.workflows.joining import join_templates
from icestream.workflows.places import find_template, list_templates
from icestream.workflows.template import Template
from toys.session import TOYS

DOCUMENT = f"""# A toy
description: Numbers, tripled
placeholders:
  folder: {{label: Folder of numbers, type: folder}}
  count: {{label: How many, type: int, ge: 1, default: 5}}
  factor: {{label: Factor, type: choice, choices: [2, 3], default: 3, env: TOY_FACTOR, group: Sums}}
  skip: {{label: Numbers to refuse, type: list, of: int, optional: true, advanced: true}}
  odd: {{label: Odd ones too, type: bool, default: false}}
  pixel: {{label: Pixel, type: float, unit: Å, gt: 0, optional: true}}
acquisition:
  pixel_size_ang: {{ask: pixel}}
roots:
  numbers: {{ask: folder}}
steps:
  numbers:
    use: {TOYS}:count_numbers
    params: {{stop_after: {{ask: count}}}}
  triple:
    use: {TOYS}:multiply
    in: {{number: numbers}}
    params: {{factor: {{ask: factor}}, fail_on: {{ask: skip}}}}
  even:
    use: {TOYS}:keep_multiples
    in: {{number: triple}}
  odd:
    use: {TOYS}:multiply
    only_with: odd
    in: {{number: even.rejected}}
  any:
    use: {TOYS}:add_all
    in: {{numbers: [even, odd]}}
"""


@pytest.fixture
def toy() -> Template:
    return read_template(DOCUMENT, origin="toy")


def test_values_go_where_they_are_asked_for(toy: Template, tmp_path: Path) -> None:
    document = fill_template(toy, {"folder": tmp_path, "count": "7", "skip": [4], "odd": "yes", "pixel": 1.5}, name="mine")
    assert document.name == "mine"
    assert document.roots == {"numbers": str(tmp_path)}
    assert document.acquisition.pixel_size_ang == 1.5
    assert document.steps["numbers"].params == {"stop_after": 7}
    assert document.steps["triple"].params == {"factor": 3, "fail_on": [4]}
    assert document.steps["any"].inputs == {"numbers": ["even", "odd"]}


def test_what_is_optional_is_left_out(toy: Template, tmp_path: Path) -> None:
    document = fill_template(toy, {"folder": tmp_path})
    assert document.acquisition.pixel_size_ang is None
    assert document.steps["triple"].params == {"factor": 3}
    assert "odd" not in document.steps
    assert document.steps["any"].inputs == {"numbers": ["even"]}


def test_a_value_can_be_part_of_a_parameter() -> None:
    text = f"""
placeholders: {{a: {{label: a, type: int, default: 1}}, b: {{label: b, type: int, optional: true}}}}
steps:
  numbers: {{use: "{TOYS}:count_numbers", params: {{stop_after: 1}}}}
  x: {{use: "{TOYS}:multiply", in: {{number: numbers}}, params: {{fail_on: [{{ask: a}}, 9], crash_on: [8, {{ask: b}}]}}}}
"""
    template = read_template(text, origin="here")
    assert fill_template(template, {}).steps["x"].params == {"fail_on": [1, 9]}
    assert fill_template(template, {"b": 2}).steps["x"].params["crash_on"] == [8, 2]


def test_the_environment_gives_a_default(toy: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FACTOR", "2")
    assert fill_template(toy, {"folder": tmp_path}).steps["triple"].params["factor"] == 2
    assert fill_template(toy, {"folder": tmp_path, "factor": 3}).steps["triple"].params["factor"] == 3
    assert placeholders_schema(toy)["properties"]["factor"]["default"] == 2
    monkeypatch.setenv("TOY_FACTOR", "7")
    with pytest.raises(WorkflowError, match=r"'factor' \(Factor\) from TOY_FACTOR is '7'; it must be one of 2, 3"):
        fill_template(toy, {"folder": tmp_path})


def test_every_problem_is_told_at_once(toy: Template) -> None:
    with pytest.raises(WorkflowError) as caught:
        fill_template(toy, {"count": 0, "facter": 2}, settings={"triple": {"sise": 1}, "nope": {"x": 1}})
    told = str(caught.value).split("\n")
    for part in (
        "'facter' is not a value that is asked for; did you mean 'factor'?",
        "'count' (How many) is 0; it must be a whole number, at least 1",
        "'folder' (Folder of numbers) is not given; it must be a folder; write --set folder=FOLDER",
        "has no parameter 'sise'",
        "no step 'nope' in this session",
    ):
        assert any(part in line for line in told), (part, told)


def test_a_parameter_that_is_set_needs_no_answer() -> None:
    template = load_template("movies_to_classes")
    document = fill_template(template, {"movies": "/data"}, settings={"picks": {"diameter_ang": [100, 120]}})
    assert document.steps["picks"].params == {"diameter_ang": [100, 120]}
    with pytest.raises(WorkflowError, match=r"'movies' .* is not given; .*--movies"):
        fill_template(template, {})


def test_the_diameter_is_found_where_none_is_given() -> None:
    template = load_template("movies_to_classes")
    found, given = (fill_template(template, {"movies": "/data", **more}).steps for more in ({}, {"diameter": [100, 120]}))
    assert (str(found["picks"].inputs["size"]), found["picks"].params) == ("size", {})
    assert set(found) - set(given) == {"size"}
    assert "size" not in given["picks"].inputs


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"roots": {"numbers": {"ask": "foldr"}}}, "asks for 'foldr', which is not a placeholder; did you mean 'folder'?"),
        ({"roots": {"numbers": {"ask": "folder.pattern"}}}, "only a path or file has parts"),
        ({"acquisition": {"voltage": 300}}, "there is no value 'voltage'"),
        ({"placeholders": {"Bad-name": {"label": "x"}}}, "placeholder 'Bad-name': a name is made of"),
        ({"placeholders": {"unused": {"label": "x"}}}, "placeholder 'unused': nothing asks for it"),
        ({"placeholders": {"count": {"label": "x", "type": "int", "default": "x"}}}, "placeholders.count"),
        ({"question": 1}, "question: Extra inputs"),
    ],
)
def test_a_template_that_is_wrong_in_itself_is_refused(change: dict[str, Any], told: str) -> None:
    data = yaml.safe_load(DOCUMENT)
    for section, values in change.items():
        data[section] = {**data.get(section, {}), **values} if isinstance(values, dict) else values
    with pytest.raises(WorkflowError, match="workflow here: ") as caught:
        read_template(yaml.safe_dump(data), origin="here")
    assert told in str(caught.value)


def test_the_schema_is_that_of_the_values(toy: Template) -> None:
    schema = placeholders_schema(toy)
    assert schema["required"] == ["folder"]
    assert schema["properties"]["count"] == {
        "type": "integer", "minimum": 1, "title": "How many", "default": 5, "group": "Values",
    }  # fmt: skip
    assert schema["properties"]["factor"]["enum"] == [2, 3]
    assert schema["properties"]["pixel"]["unit"] == "Å"
    assert schema["properties"]["pixel"]["exclusiveMinimum"] == 0
    assert schema["properties"]["skip"]["items"] == {"type": "integer"}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("name", ["movies_to_classes", "micrographs_to_classes", "movies_to_ctf"])
def test_a_template_that_we_ship_asks_what_its_workflow_implies(name: str) -> None:
    template = load_template(name)
    plain = Template(steps={key: spec.model_copy(update={"only_with": None}) for key, spec in template.steps.items()})
    implied = imply_template(plain.workflow().steps)
    asked = {key: one for key, one in template.placeholders.items() if key not in ("ice", "ice_nodes")}  # no step needs these
    assert set(asked) == set(implied.placeholders) - (
        set() if "movies" in template.placeholders else {"dose_per_frame", "pre_exposure"}
    )
    for key, one in asked.items():
        if key == "grid":  # its steps are left out with it
            assert one.optional
            continue
        assert (one.type, one.unit, one.optional, one.ge, one.gt) == tuple(
            getattr(implied.placeholders[key], field) for field in ("type", "unit", "optional", "ge", "gt")
        )


# where templates are found


def test_a_template_of_the_facility_replaces_ours_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        (folder / "movies_to_ctf.yaml").write_text(DOCUMENT, encoding="utf-8")
    (first / "own.yaml").write_text(DOCUMENT, encoding="utf-8")
    monkeypatch.setenv("ICESTREAM_TEMPLATES", f"{first}:{second}:{tmp_path / 'missing'}")
    found = list_templates()
    assert found["own"].summary == "A toy"
    assert found["movies_to_ctf"].origin == str(second / "movies_to_ctf.yaml")
    assert found["movies_to_ctf"].replaces == ("icestream", str(first / "movies_to_ctf.yaml"))
    assert load_template("movies_to_ctf").description == "Numbers, tripled"


def test_a_template_of_a_plugin_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lab_templates_for_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "lab.yaml").write_text(DOCUMENT, encoding="utf-8")
    info = tmp_path / "lab_templates_for_a_test-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-templates-for-a-test\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[icestream.templates]\nlab = lab_templates_for_a_test\ngone = no_such_package_for_a_test\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = list_templates("")
    assert found["lab"].origin == "plugin lab_templates_for_a_test"
    assert found["lab"].load().description == "Numbers, tripled"
    assert "cannot be imported" in found["gone"].summary
    with pytest.raises(WorkflowError, match="no_such_package_for_a_test"):
        found["gone"].load()


def test_a_template_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (2 << 20))
    found = list_templates(str(tmp_path))
    assert "cannot be read" in found["bad"].summary
    assert "larger than" in found["huge"].summary
    assert "movies_to_ctf" in found
    with pytest.raises(WorkflowError, match="no template has this name"):
        find_template("nothing")


# export and joining


def _session(toy: Template, folder: Path) -> Any:
    (folder / "raw").mkdir(exist_ok=True)
    values = {"folder": folder / "raw", "odd": True, "pixel": 1.5, "skip": [4]}
    return create_session(folder / "s", fill_template(toy, values, name="mine"))


def test_an_export_makes_the_same_session_again(toy: Template, tmp_path: Path) -> None:
    session = _session(toy, tmp_path)
    template = read_template(dump_template(export_template(session), summary="mine"), origin="export")
    again = fill_template(template, {}, name="mine")
    assert again == session.document


@pytest.mark.parametrize("gain", [None, "gain[1].mrc"])
def test_an_export_of_a_real_workflow_makes_the_same_revisions(tmp_path: Path, gain: str | None) -> None:
    values: dict[str, Any] = {"movies": tmp_path, "diameter": [100, 120], "pattern": "*.tiff", "voltage": 300, "cs": 2.7}
    values |= {} if gain is None else {"gain": tmp_path / "refs" / gain}
    document = fill_template(load_template("movies_to_classes"), values, name="a", settings={"ctf": {"tile_ang": 900}})
    session = create_session(tmp_path / "s", document)
    exported = export_template(session)
    assert {"movies", "pattern", "diameter", "voltage", "cs", "pixel_size"} <= set(exported.placeholders)
    text = dump_template(exported, summary="x")
    again = fill_template(read_template(text, origin="export"), {}, name="b")
    old, new = (build_graph(Workflow(steps=one.steps)).nodes for one in (document, again))
    assert {name: (node.use, node.params, node.links) for name, node in old.items()} == {
        name: (node.use, node.params, node.links) for name, node in new.items()
    }
    assert again.acquisition == document.acquisition
    assert again.roots == {name: path for name, path in session.roots.items() if name != "session"}
    other = fill_template(read_template(text, origin="export"), {"voltage": 200, "movies": "/elsewhere"})
    assert (other.acquisition.voltage_kv, other.roots["movies"]) == (200, "/elsewhere")


def test_a_workflow_without_placeholders_is_asked_for_what_it_implies(toy: Template, tmp_path: Path) -> None:
    session = _session(toy, tmp_path)
    text = dump_template(export_template(session, ask=False), summary="x")
    assert set(yaml.safe_load(text)) == {"steps"}
    path = tmp_path / "plain.yaml"
    path.write_text(text, encoding="utf-8")
    assert "pixel_size" in load_template(str(path)).placeholders


def test_a_part_has_open_inputs_that_must_be_connected(toy: Template, tmp_path: Path) -> None:
    session = _session(toy, tmp_path)
    chosen = choose_steps(session, start="even")
    assert chosen == ["even", "odd", "any"]
    part = read_template(dump_template(export_template(session, chosen), summary="part"), origin="part")
    assert {key: (one.record, one.read_by) for key, one in part.open_inputs.items()} == {"triple": ("Number", ["even.number"])}
    assert part.acquisition == {}
    with pytest.raises(WorkflowError, match=r"input 'triple' \(Number, read by even.number\) is open"):
        fill_template(part, {})
    head = Template(placeholders=toy.placeholders, roots=toy.roots, steps={"numbers": toy.steps["numbers"]})
    with pytest.raises(WorkflowError, match=r"input 'triple' .* is open; write --connect triple=STEP, STEP being one of numbers"):
        join_templates(head, part, {})
    with pytest.raises(WorkflowError, match="'nowhere' is not a step"):
        join_templates(head, part, {"triple": "nowhere"})
    joined = join_templates(head, part, {"triple": "numbers"})
    document = fill_template(joined, {"folder": tmp_path})
    assert document.steps["even"].inputs == {"number": "numbers"}


def test_an_open_input_finds_the_step_of_its_name(toy: Template, tmp_path: Path) -> None:
    session = _session(toy, tmp_path)
    part = export_template(session, choose_steps(session, steps=["any"]))
    assert set(part.open_inputs) == {"even", "odd"}
    head = Template(**{**dict(toy), "steps": {name: spec for name, spec in toy.steps.items() if name != "any"}})
    document = fill_template(join_templates(head, part, {}), {"folder": tmp_path, "odd": True})
    assert document.steps["any"].inputs == {"numbers": ["even", "odd"]}
    with pytest.raises(WorkflowError, match="step 'any': both workflows have one"):
        join_templates(toy, part, {})


def test_a_wrong_connection_is_told_by_type(tmp_path: Path) -> None:
    document = fill_template(load_template("movies_to_ctf"), {"movies": tmp_path})
    session = create_session(tmp_path / "s", document)
    part = export_template(session, ["ctf"])
    head = load_template("movies_to_ctf")
    head = head.model_copy(update={"steps": {name: head.steps[name] for name in ("movies", "gain", "aligned")}})
    joined = join_templates(head, part, {"steady": "movies"})
    with pytest.raises(WorkflowError, match="input 'micrograph' wants Micrograph, but movies gives Movie"):
        fill_template(joined, {"movies": tmp_path})
    assert fill_template(join_templates(head, part, {"steady": "aligned"}), {"movies": tmp_path}).steps["ctf"].inputs


def test_the_folder_of_a_given_file_is_asked_for(tmp_path: Path) -> None:
    steps = {"movies": StepSpec(use="import_movies"), "aligned": StepSpec(use="motion", inputs={"movie": "movies"})}
    settings = {"aligned": {"defects": "k3:defects.txt"}}
    plain, values = imply_template(steps), {"movies": tmp_path}
    with pytest.raises(WorkflowError, match=r"'aligned' \(motion\) is given a file in the folder 'k3', .*--root k3=FOLDER"):
        fill_template(plain, values, settings=settings)
    assert fill_template(plain, values, settings=settings, roots={"k3": "/k3"}).roots["k3"] == "/k3"
    asking = imply_template({**steps, "aligned": steps["aligned"].model_copy(update={"params": settings["aligned"]})})
    assert asking.roots["k3"] == {"ask": "k3"}
