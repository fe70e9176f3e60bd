import json
from pathlib import Path
from typing import Any

import pytest

from icestream.errors import WorkflowError
from icestream.workflows.scipion import parse
from icestream.workflows.scipion.parse import NOT_IN_FILE, Document, DynamicField, Pointer, parse_scipion, read_scipion_file


def _item(identity: Any = 1, name: Any = "ProtImportMovies", **values: Any) -> dict[str, Any]:
    return {"object.className": name, "object.id": identity, **values}


def _parse(*items: Any, template: bool = False) -> Document:
    return parse_scipion(json.dumps(items), name="here.json", template=template)


def _value(name: str, value: Any, template: bool = False) -> Any:
    return _parse(_item(10), _item(1, **{name: value}), template=template).protocols[-1].values[name]


def test_the_text_before_the_array_is_its_description(facility_template: str) -> None:
    document = parse_scipion(facility_template, name="here", template=True)
    assert document.description == "From movies to 2D classes,\nin streaming: 100 %"
    assert len(document.protocols) == 19


def test_protocols_come_after_those_that_they_read(facility: list[dict[str, Any]]) -> None:
    for items in (facility, facility[::-1]):
        seen: set[str] = set()
        for protocol in _parse(*items).protocols:
            assert {pointer.protocol for group in protocol.pointers.values() for pointer in group} <= seen
            seen.add(protocol.id)


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("inputMovies", "10.outputMovies", Pointer("10", "outputMovies")),
        ("inputParticles", "10.outputClasses.1", Pointer("10", "outputClasses.1")),
        ("boxSize", "10.boxSizeExtraction", Pointer("10", "boxSizeExtraction")),
        ("triggerProt", "10.", Pointer("10", "")),
        ("triggerProt", "10", Pointer("10", "")),
        ("inputProtocols", ["10", "10.outputCTF"], (Pointer("10", ""), Pointer("10", "outputCTF"))),
        ("inputCoordinates", [], ()),
        ("boxSize", "300", "300"),
        ("maxShift", "10.5", "10.5"),
        ("gainFile", "20.mrc", "20.mrc"),
        ("filesPath", "%(HOME)s/movies", "%(HOME)s/movies"),
        ("filesPath", "~/movies~", "~/movies~"),
        ("voltage", 300, 300),
        ("dose", "~Dose (e/Å²)|1.2|4|dose~", DynamicField("Dose (e/Å²)", "1.2", "decimal", "dose")),
        ("dose", "~Dose||4~", DynamicField("Dose", None, "decimal", None)),
    ],
)
def test_a_value_is_read_as_what_it_is(name: str, written: Any, read: Any) -> None:
    assert _value(name, written) == read


def test_a_doubled_percent_sign_is_one_in_a_template_only() -> None:
    assert _value("comment", "5 %% of %(USER)s", template=True) == "5 % of %(USER)s"
    assert _value("comment", "5 %% of %(USER)s") == "5 %% of %(USER)s"


def test_a_field_of_a_template_may_stand_without_quotes() -> None:
    text = '[{"object.className": "A", "object.id": 1, "object.label": "a ~b|1|3~", "dose": ~Dose|1.2|4|dose~, "kv": ~é|300|3~}]'
    protocol = parse_scipion(text, name="here", template=True).protocols[0]
    assert protocol.values == {
        "dose": DynamicField("Dose", "1.2", "decimal", "dose"),
        "kv": DynamicField("é", "300", "integer", None),
    }
    assert protocol.label == "a ~b|1|3~"
    with pytest.raises(WorkflowError, match="is not JSON"):
        parse_scipion(text, name="here")


def test_who_has_to_be_waited_for_is_kept() -> None:
    assert _parse(_item(1, _prerequisites="1207,15")).protocols[0].prerequisites == ("1207", "15")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "starts with ''"),
        ("no workflow at all", "starts with 'no workflow at all'"),
        ('{"steps": []}', "JSON array"),
        ("[", "is not JSON"),
        ('[{"object.className": "A", "object.id": "1", "voltage": %(KV)s}]', "must be in quotes"),
        ("[] []", "Extra data"),
        ("[1]", r"protocol 1 of 1: is '1'"),
        ("[[]]", r"protocol 1 of 1: is '\[\]'"),
        ('[{"object.id": "1"}]', "object.className is None"),
        ('[{"object.className": "a b", "object.id": "1"}]', "object.className is 'a b'"),
        ('[{"object.className": "A"}]', r"\(A\): object.id is None; it must be a number"),
        ('[{"object.className": "A", "object.id": "x"}]', "object.id is 'x'"),
        ('[{"object.className": "A", "object.id": true}]', "object.id is True"),
        ('[{"object.className": "A", "object.id": 1, "object.label": 5}]', "object.label is '5'; it must be text"),
        ('[{"object.className": "A", "object.id": 1, "a": {"b": 1}}]', "a is \"{'b': 1}\""),
        ('[{"object.className": "A", "object.id": 1, "a": [[1]]}]', "a is '"),
        ('[{"object.className": "A", "object.id": 1, "a": "\\ud800"}]', "not Unicode text"),
        ('[{"object.className": "A", "object.id": 1, "a": 1, "a": 2}]', "a twice"),
        ('[{"object.className": "A", "object.id": 1, "a": "~L|d|9~"}]', "type 0 to 6"),
        ('[{"object.className": "A", "object.id": 1, "a": "~L|d~"}]', "it must be ~Label"),
        ("[" * 200_000, "nested too deeply"),
        ('[{"object.className": "A", "object.id": 1, "a": ' + "9" * 5000 + "}]", "is not JSON"),
    ],
)
def test_what_is_no_export_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(WorkflowError, match=told) as caught:
        parse_scipion(text, name="here.json")
    assert str(caught.value).startswith("here.json: ")


def test_of_two_protocols_of_one_id_the_last_is_taken_and_said() -> None:
    (protocol,) = _parse(_item("7", "ProtGctf"), _item(7, binFactor=2)).protocols
    assert (protocol.class_name, protocol.values["binFactor"]) == ("ProtImportMovies", 2)
    assert protocol.notes == ("the file has the id 7 more than once, also as ProtGctf; the last is taken",)


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_text_of_its_parameter_alone(written: str) -> None:
    text = f'[{{"object.className": "A", "object.id": 1, "a": {written}, "b": [{written}], "c": 2.5}}]'
    (protocol,) = parse_scipion(text, name="here").protocols
    assert protocol.values == {"a": written, "b": (written,), "c": 2.5}
    json.dumps(protocol.raw, allow_nan=False)


def test_what_a_pointer_leads_to_outside_of_the_file_has_a_stand_in() -> None:
    document = _parse(_item(1), _item(2, "ProtGctf", inputMicrographs="9.outputMicrographs"))
    assert sorted(one.id for one in document.protocols) == ["1", "2", "9"]
    order = [one.id for one in document.protocols]
    assert order.index("9") < order.index("2")
    assert next(one for one in document.protocols if one.id == "9").class_name == NOT_IN_FILE


def test_a_circle_is_refused() -> None:
    with pytest.raises(WorkflowError, match=r"1 \(A\), 2 \(B\) take their input from each other in a circle"):
        _parse(_item(1, "A", inputSet="2.output"), _item(2, "B", inputSet="1.output"), _item(3))


def test_too_many_protocols_are_refused() -> None:
    with pytest.raises(WorkflowError, match="1001 protocols; at most 1000"):
        _parse(*(_item(number) for number in range(1001)))


def test_a_file_is_read_and_told_as_a_template_by_its_name(tmp_path: Path, facility_template: str) -> None:
    path = tmp_path / "facility.json.template"
    path.write_text(facility_template.replace("max shift", "max %% shift"), encoding="utf-8-sig")
    document = read_scipion_file(path)
    assert document.name == "facility.json.template"
    assert "max % shift" in [protocol.label for protocol in document.protocols]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "workflow.json"
    with pytest.raises(WorkflowError, match="no such file"):
        read_scipion_file(path)
    with pytest.raises(WorkflowError, match="no such file"):
        read_scipion_file(tmp_path)
    path.write_bytes(b"[\xff\xfe]")
    with pytest.raises(WorkflowError, match="cannot be read as text"):
        read_scipion_file(path)
    monkeypatch.setattr(parse, "LARGEST_BYTES", 1 << 20)
    path.write_bytes(b"[" + b" " * (1 << 20) + b"]")
    with pytest.raises(WorkflowError, match="larger than 1 MiB"):
        read_scipion_file(path)
