"""What fits what in a workflow, also while it is unfinished, and problems with the step and field that they are of."""

from typing import Any

from icestream.flow.workflow import Workflow, examine_workflow, find_offers

TOYS = "toys.steps"


def look(**steps: Any):
    workflow = Workflow.model_validate({"steps": steps})
    examined = examine_workflow(workflow)
    return examined, find_offers(workflow, examined)


def offered(offers, step: str, port: str) -> set[str]:
    return {str(link) for link in offers.inputs[step][port]}


NUMBERS = {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 3}}


def test_an_input_is_offered_what_fits_and_nothing_that_it_feeds() -> None:
    examined, offers = look(
        numbers=NUMBERS,
        even={"use": f"{TOYS}:keep_multiples", "in": {"number": "numbers"}},
        odd={"use": f"{TOYS}:multiply", "in": {"number": "even.rejected"}},
        total={"use": f"{TOYS}:AddUp", "in": {"number": "odd"}},
        late={"use": f"{TOYS}:less_total", "in": {"number": "odd", "total": "total"}},
    )
    assert examined.problems == ()
    assert offered(offers, "even", "number") == {"numbers"}
    assert offered(offers, "odd", "number") == {"numbers", "even", "even.rejected"}
    assert offered(offers, "late", "total") == {"total"}
    assert offered(offers, "late", "number") == {"numbers", "even", "even.rejected", "odd"}


def test_offers_agree_with_what_the_check_accepts() -> None:
    steps: dict[str, Any] = {
        "numbers": NUMBERS,
        "even": {"use": f"{TOYS}:keep_multiples", "in": {"number": "numbers"}},
        "batch": {"use": f"{TOYS}:batches", "in": {"items": "even"}, "params": {"count": 2}},
        "total": {"use": f"{TOYS}:AddUp", "in": {"number": "even"}},
    }
    assert look(**steps)[0].problems == ()
    for use, port in (("multiply", "number"), ("keep_multiples", "number"), ("report_total", "total")):
        _, offers = look(**steps, new={"use": f"{TOYS}:{use}"})
        every = [f"{step}.{output}" if output != "out" else step for step in steps for output in offers.outputs[step]]
        for link in every:
            examined, _ = look(**steps, new={"use": f"{TOYS}:{use}", "in": {port: link}})
            fits = not any(one.field == f"in.{port}" for one in examined.problems)
            assert (link in offered(offers, "new", port)) == (fits and link not in ("even.number", "even.rejected.number")), link


def test_what_is_unfinished_offers_what_its_type_says() -> None:
    examined, offers = look(
        late={"use": f"{TOYS}:multiply", "in": {"number": "sieve"}},
        sieve={"use": f"{TOYS}:keep_multiples"},
        numbers=NUMBERS,
        strange={"use": "nothing"},
    )
    told = {(one.step, one.field) for one in examined.problems}
    assert told == {("sieve", "in.number"), ("strange", "use")}
    assert offered(offers, "sieve", "number") == {"numbers"}
    assert offered(offers, "late", "number") == {"numbers", "sieve", "sieve.rejected"}
    assert "strange" not in offers.inputs


def test_problems_know_their_field_and_read_as_before() -> None:
    examined, _ = look(
        numbers=NUMBERS,
        a={"use": f"{TOYS}:multiply", "in": {"number": "nobody"}, "params": {"factor": "x", "odd": 1}},
        B={"use": f"{TOYS}:multiply", "in": {"number": "numbers"}},
        c={"use": f"{TOYS}:multiply", "in": {"number": "d"}},
        d={"use": f"{TOYS}:multiply", "in": {"number": "c"}},
    )
    found = {(one.step, one.field): str(one) for one in examined.problems}
    assert set(found) == {("a", "in.number"), ("a", "params.factor"), ("a", "params.odd"), ("B", "name"), (None, None)}
    assert found["a", "in.number"].startswith("step 'a': takes input from 'nobody', which is not a step of this workflow")
    assert found[None, None] == "steps c, d: take their input from each other in a circle"


def test_values_that_are_to_be_given_later_are_no_problem() -> None:
    workflow = Workflow.model_validate({"steps": {"numbers": {"use": f"{TOYS}:count_numbers"}}})
    assert [one.field for one in examine_workflow(workflow).problems] == ["params.stop_after"]
    assert examine_workflow(workflow, later={"numbers": frozenset({"stop_after"})}).problems == ()
