"""Fair shares as a pure function: nobody gets more than they want, nothing lies idle that somebody wants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icestream.flow.resources.fairness import Claim, beyond, dominant_part, grant, share_of, share_out

MACHINE = {"cores": 8.0, "memory_gb": 64.0, "gpu_gb": 48.0, "gpu0": 24.0, "gpu1": 24.0}


@pytest.mark.parametrize(
    ("capacity", "demands", "shares"),
    [
        (8, [8, 8], [4, 4]),
        (8, [2, 8], [2, 6]),
        (8, [8, 1, 8, 0], [3.5, 1, 3.5, 0]),
        (8, [1, 2], [1, 2]),
        (8, [], []),
    ],
)
def test_what_one_does_not_want_others_get(capacity: float, demands: list[float], shares: list[float]) -> None:
    assert share_out(capacity, demands) == shares


@given(st.floats(0, 1e6), st.lists(st.floats(0, 1e6), max_size=12))
def test_shares_are_max_min_fair(capacity: float, demands: list[float]) -> None:
    shares = share_out(capacity, demands)
    assert all(0 <= share <= demand for share, demand in zip(shares, demands, strict=True))
    assert sum(shares) == pytest.approx(min(capacity, sum(demands)), rel=1e-9, abs=1e-6)
    unsatisfied = [share for share, demand in zip(shares, demands, strict=True) if share < demand * (1 - 1e-9) - 1e-6]
    assert all(share <= smallest * (1 + 1e-9) + 1e-6 for smallest in unsatisfied for share in shares)


@given(st.integers(1, 64), st.lists(st.integers(0, 64), min_size=1, max_size=9))
def test_cores_come_whole_and_none_is_left_over(cores: int, wanted: list[int]) -> None:
    claims = [Claim({}, {"cores": float(want)}, {}, 0.0, order) for order, want in enumerate(wanted)]
    whole = [share_of("cores", float(cores), claim, [other for other in claims if other is not claim]) for claim in claims]
    assert all(share == int(share) for share in whole)
    assert sum(whole) == min(cores, sum(wanted))


def test_a_lone_runner_may_have_what_it_wants() -> None:
    me = Claim(wanted={"cores": 8.0, "memory_gb": 16.0})
    given_to_me = grant(MACHINE, me, [], running={}, ask={"cores": 1.0, "memory_gb": 2.0})
    assert (given_to_me.limit["cores"], given_to_me.limit["memory_gb"]) == (8.0, 16.0)


def test_the_first_task_starts_also_when_others_have_borrowed_every_core() -> None:
    other = Claim({"cores": 8.0, "memory_gb": 8.0}, {"cores": 8.0, "memory_gb": 8.0}, {}, 5.0, 0)
    ask = {"cores": 1.0, "memory_gb": 1.0}
    first = grant(MACHINE, Claim({}, ask, {}, 5.0, 1), [other], running={}, ask=ask)
    assert not beyond(ask, first.limit)
    second = grant(MACHINE, Claim({}, {"cores": 2.0, "memory_gb": 2.0}, {}, 5.0, 1), [other], running=ask, ask=ask)
    assert second.lacking == {"cores"}


def test_memory_is_never_promised_twice() -> None:
    other = Claim({"cores": 1.0, "memory_gb": 60.0}, {"cores": 1.0, "memory_gb": 60.0}, {}, 5.0, 0)
    ask = {"cores": 1.0, "memory_gb": 8.0}
    mine = grant(MACHINE, Claim({}, ask, {}, 5.0, 1), [other], running={}, ask=ask)
    assert beyond(ask, mine.limit) >= {"memory_gb"}
    assert mine.need == ask


def test_those_who_were_served_more_leave_room_for_a_task_that_is_due() -> None:
    due = Claim({}, {"cores": 8.0}, {"cores": 8.0, "memory_gb": 4.0}, 3.0, 0)
    ask = {"cores": 1.0, "memory_gb": 1.0}
    served_more = grant(MACHINE, Claim({}, {"cores": 8.0}, {}, 9.0, 1), [due], running={}, ask=ask)
    served_less = grant(MACHINE, Claim({}, {"cores": 8.0}, {}, 1.0, 1), [due], running={}, ask=ask)
    assert "cores" in beyond(ask, served_more.limit)
    assert "cores" not in beyond(ask, served_less.limit)


def test_a_gpu_has_room_of_its_own() -> None:
    other = Claim({"gpu_gb": 20.0, "gpu0": 20.0}, {"gpu_gb": 20.0}, {}, 0.0, 0)
    me = Claim({}, {"cores": 1.0, "gpu_gb": 8.0}, {}, 0.0, 1)
    asks = [{"cores": 1.0, "gpu_gb": 8.0, f"gpu{index}": 8.0} for index in (0, 1)]
    limits = [grant(MACHINE, me, [other], running={}, ask=ask).limit for ask in asks]
    assert "gpu0" in beyond(asks[0], limits[0])
    assert not beyond(asks[1], limits[1])


def test_service_is_measured_by_the_scarcest_resource() -> None:
    assert dominant_part({"cores": 2.0, "memory_gb": 32.0}, MACHINE) == 0.5
    assert dominant_part({}, MACHINE) == 0.0
