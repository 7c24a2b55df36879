import heapq
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.budget import Budget, Wait

LIST, DELETE, MACHINES, PUT = "agentpools.list", "agentpools.delete", "machines.list", "agentpools.create"
CLUSTER, SKUS, USAGES = "managedclusters.get", "skus.list", "usages.list"
UPGRADES = "upgradeprofiles.get"
OF_AKS = (LIST, DELETE, MACHINES, UPGRADES)
# Half of what AKS documents for all of them together: 60 tokens, one more a second.
BURST, RATE = 30.0, 0.5


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A budget in a time that a test moves."""

    def __init__(self, *, share: float = 0.5) -> None:
        self.clock = Clock()
        self.budget = Budget(clock=self.clock, share=share)

    def ask(self, operation: str, path: str = "/pool") -> Wait | None:
        return self.budget.admit(operation, path=path)

    def admitted(self, operation: str, *, of: int, path: str = "/pool") -> int:
        return sum(self.ask(operation, f"{path}{number}") is None for number in range(of))

    def refused(self, operation: str, path: str, *, message: str = "", code: str = "", after: float | None = 7) -> None:
        failure = Failure(kind=FailureClass.THROTTLED, message=message, code=code, retry_after=after)
        self.budget.throttled(operation, path=path, failure=failure)

    def use_up(self, operation: str) -> None:
        while self.ask(operation, "/used-up") is None:
            pass


def told(wait: Wait | None) -> float:
    assert wait is not None
    return wait.seconds


# Our share


def test_a_burst_is_admitted_and_no_more() -> None:
    bench = Bench()
    assert bench.admitted(CLUSTER, of=100) == BURST
    assert bench.admitted(PUT, of=500) == 100


def test_what_was_used_up_comes_back_in_time() -> None:
    bench = Bench()
    bench.use_up(CLUSTER)
    bench.clock.now += 6 / RATE
    assert bench.admitted(CLUSTER, of=100) == 6


@pytest.mark.parametrize(
    ("hungry", "other"),
    [(LIST, DELETE), (DELETE, LIST), (MACHINES, LIST), (MACHINES, DELETE), (UPGRADES, DELETE)],
)
def test_no_kind_of_call_starves_another(hungry: str, other: str) -> None:
    bench = Bench()
    for _ in range(600):
        bench.clock.now += 0.5
        bench.use_up(hungry)
    assert bench.ask(other) is None
    bench.use_up(other)
    for _ in range(20):
        bench.clock.now += 0.5
        bench.use_up(hungry)
    assert bench.ask(other) is None


def test_puts_cost_lists_and_deletes_nothing() -> None:
    bench = Bench()
    bench.admitted(PUT, of=500)
    assert bench.ask(LIST) is None
    assert bench.admitted(DELETE, of=15) == 15


def test_what_nobody_else_needs_may_be_used() -> None:
    bench = Bench()
    bench.use_up(LIST)
    bench.clock.now += 100
    # The lists' own part would be 0.2 a second; deletes and machines have all they can hold.
    lists = 0
    for _ in range(100):
        bench.clock.now += 1
        lists += bench.ask(LIST) is None
    assert lists >= 49


def test_one_agent_pool_is_not_put_more_often_than_azure_allows_for_one() -> None:
    bench = Bench()
    assert sum(bench.ask(PUT, "/pool") is None for _ in range(100)) == 10
    assert bench.ask(PUT, "/other") is None
    wait = bench.ask(PUT, "/pool")
    assert wait == Wait(seconds=120.0, by_azure=False)
    bench.clock.now += 120
    assert bench.ask(PUT, "/pool") is None


def test_pools_without_number_are_not_remembered_for_ever() -> None:
    bench = Bench(share=100)
    for number in range(5000):
        bench.clock.now += 1
        assert bench.ask(PUT, f"/pool{number}") is None
    assert len(bench.budget._pools) <= 1000


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Budget(share=0)


def test_a_larger_share_admits_more() -> None:
    assert Bench(share=1.0).admitted(CLUSTER, of=100) == 60


def test_pages_of_a_list_are_sent_and_are_owed() -> None:
    bench = Bench()
    bench.use_up(CLUSTER)
    for _ in range(4):
        bench.budget.continue_with(CLUSTER)
    assert told(bench.ask(CLUSTER)) == pytest.approx(5 / RATE)


def test_an_operation_that_is_not_known_has_limits_too() -> None:
    bench = Bench()
    assert 0 < bench.admitted("something.new", of=100) <= BURST


# Who waits


def test_fifty_that_wait_are_told_fifty_moments() -> None:
    bench = Bench()
    bench.use_up(DELETE)
    moments = [told(bench.ask(DELETE, f"/pool{number}")) for number in range(50)]
    assert moments == sorted(moments)
    # As the calls may be sent: what lists and machines do not use, they may have.
    assert all(later - earlier == pytest.approx(1 / RATE) for earlier, later in pairwise(moments))


def test_whose_turn_is_far_away_asks_in_between() -> None:
    bench = Bench()
    throttle_all(bench, after=60)
    assert [told(bench.ask(PUT, f"/{number}")) for number in range(8)] == [60, 120, 180, 240, 300, 300, 300, 300]
    # The others may be gone by then, or Azure may be in a better mood.
    bench.clock.now += 300
    assert bench.ask(PUT, "/7") is None


def test_who_asks_early_is_told_the_same_moment() -> None:
    bench = Bench()
    bench.use_up(CLUSTER)
    first = told(bench.ask(CLUSTER, "/a"))
    bench.ask(CLUSTER, "/b")
    bench.clock.now += 0.5
    assert told(bench.ask(CLUSTER, "/a")) == pytest.approx(first - 0.5)


def test_our_own_limit_is_not_said_to_be_azures() -> None:
    bench = Bench()
    bench.admitted(CLUSTER, of=30)
    wait = bench.ask(CLUSTER)
    assert wait is not None
    assert not wait.by_azure
    assert wait.message.startswith("Held back for 2 s to leave others in the subscription their share")


# What Azure asks for


def test_a_pause_that_azure_asks_for_is_kept_by_everybody() -> None:
    bench = Bench()
    bench.refused(DELETE, "/a", code="Throttled", after=30)
    for operation in OF_AKS:
        wait = bench.ask(operation, "/b")
        assert wait is not None
        assert wait.by_azure
        assert wait.seconds >= 30
        assert wait.message.startswith("Azure throttles its API for another 3")
    assert bench.ask(PUT, "/b") is None
    assert bench.ask(CLUSTER) is None


def test_after_a_pause_one_call_of_each_kind_finds_out() -> None:
    bench = Bench()
    bench.refused(LIST, "/a", code="Throttled", after=30)
    bench.clock.now += 30
    assert [bench.admitted(operation, of=10) for operation in OF_AKS] == [1, 1, 1, 1]


def test_all_who_wait_for_the_end_of_a_pause_do_not_come_together() -> None:
    bench = Bench()
    bench.refused(LIST, "/a", code="Throttled", after=30)
    moments = [told(bench.ask(DELETE, f"/pool{number}")) for number in range(20)]
    assert moments[0] == 30
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(moments))


def test_a_pause_is_never_shortened_by_another() -> None:
    bench = Bench()
    bench.refused(LIST, "/a", code="Throttled", after=30)
    bench.refused(LIST, "/a", code="Throttled", after=2)
    bench.clock.now += 29
    assert told(bench.ask(LIST)) >= 1


def test_a_429_that_names_no_time_is_a_pause_too() -> None:
    bench = Bench()
    bench.refused(LIST, "/a", code="Throttled", after=None)
    assert told(bench.ask(LIST)) == 10


def test_a_429_without_a_code_is_about_that_resource_until_another_has_one() -> None:
    bench = Bench()
    bench.refused(DELETE, "/a", after=30)
    assert told(bench.ask(DELETE, "/A?api-version=1")) == 30
    assert bench.ask(DELETE, "/b") is None
    bench.refused(DELETE, "/b", after=20)
    assert told(bench.ask(DELETE, "/c")) == 20
    assert told(bench.ask(DELETE, "/a")) == 30


@pytest.mark.parametrize(
    ("operation", "closed"), [(LIST, (LIST, MACHINES, UPGRADES, CLUSTER, SKUS, USAGES)), (PUT, (PUT,))]
)
def test_arm_counts_by_kind_of_request(operation: str, closed: Sequence[str]) -> None:
    bench = Bench()
    bench.refused(operation, "/a", code="SubscriptionRequestsThrottled", after=9)
    for each in (*OF_AKS, CLUSTER, SKUS, USAGES, PUT):
        assert (bench.ask(each) is not None) == (each in closed), each


# PUT: of a pool, or of the cluster


def test_one_pool_that_is_throttled_does_not_stop_the_others() -> None:
    bench = Bench()
    bench.refused(PUT, "/a", code="Throttled", message="The PutAgentPoolHandler.PUT request limit has been exceeded.")
    assert told(bench.ask(PUT, "/a")) == 7
    assert bench.admitted(PUT, of=30) == 30
    bench.clock.now += 7
    assert bench.ask(PUT, "/a") is None


def test_two_pools_that_are_throttled_stop_all_of_them() -> None:
    bench = Bench()
    bench.refused(PUT, "/a", code="Throttled")
    bench.clock.now += 20
    bench.refused(PUT, "/b", code="Throttled")
    assert told(bench.ask(PUT, "/c")) == 7


def test_two_pools_that_are_throttled_far_apart_stop_nobody() -> None:
    bench = Bench()
    bench.refused(PUT, "/a", code="Throttled")
    bench.clock.now += 61
    bench.refused(PUT, "/b", code="Throttled")
    assert bench.ask(PUT, "/c") is None


def test_pools_whose_own_limits_azure_names_stop_nobody_else() -> None:
    bench = Bench()
    for pool in ("/a", "/b"):
        bench.refused(PUT, pool, code="Throttled", message=f"limit has been exceeded for agentpool {pool}, please")
    assert bench.ask(PUT, "/c") is None


@pytest.mark.parametrize("whose", ["SubID='s'", "managedcluster /subscriptions/s/c"])
def test_one_pool_that_meets_the_limit_of_all_stops_all(whose: str) -> None:
    bench = Bench()
    bench.refused(PUT, "/a", code="Throttled", message=f"limit has been exceeded for {whose}, please retry", after=60)
    moments = [told(bench.ask(PUT, f"/{name}")) for name in "bcd"]
    assert moments == [60, 120, 180]


def throttle_all(bench: Bench, *, after: float) -> None:
    bench.refused(PUT, "/a", code="Throttled", message="exceeded for managedcluster c", after=after)


def test_after_that_one_put_at_a_time_is_let_through() -> None:
    bench = Bench()
    throttle_all(bench, after=60)
    bench.clock.now += 60
    assert bench.admitted(PUT, of=10) == 1
    bench.clock.now += 59
    wait = bench.ask(PUT, "/x")
    assert wait is not None
    assert wait.by_azure
    bench.clock.now += 1
    assert bench.admitted(PUT, of=10) == 1


def test_the_pace_is_what_azure_shows_and_not_below_what_it_documents() -> None:
    bench = Bench()
    throttle_all(bench, after=3)
    bench.clock.now += 3
    assert bench.admitted(PUT, of=10) == 1
    bench.clock.now += 3
    assert bench.admitted(PUT, of=10) == 1
    throttle_all(bench, after=600)
    bench.clock.now += 600
    assert bench.admitted(PUT, of=10) == 1
    bench.clock.now += 60
    assert bench.admitted(PUT, of=10) == 1


def test_a_pool_that_is_throttled_meanwhile_stops_all_again() -> None:
    bench = Bench()
    throttle_all(bench, after=10)
    bench.clock.now += 45
    bench.refused(PUT, "/a", code="Throttled", after=30)
    assert told(bench.ask(PUT, "/b")) == 30
    bench.clock.now += 30
    bench.budget.answered(PUT)
    assert bench.admitted(PUT, of=10) == 1


def test_puts_are_free_again_when_azure_has_answered_without_429_for_a_while() -> None:
    bench = Bench()
    throttle_all(bench, after=10)
    bench.clock.now += 10
    for _ in range(5):
        assert bench.admitted(PUT, of=10) == 1
        bench.budget.answered(PUT)
        bench.clock.now += 10
    assert bench.ask(PUT, "/another") is None
    bench.budget.answered(PUT)
    bench.clock.now += 2
    assert bench.admitted(PUT, of=10) == 10


# Whatever happens

OPERATIONS = (*OF_AKS, CLUSTER, PUT, SKUS, USAGES)
Event = tuple[float, str, int, float | None]
EVENTS: st.SearchStrategy[list[Event]] = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.sampled_from(OPERATIONS),
        # How many ask at that moment, and the Retry-After of a 429 to the last of them.
        st.integers(1, 60),
        st.none() | st.floats(0, 90),
    ),
    max_size=40,
)


def most_in_any_window(moments: Sequence[float], *, burst: float, rate: float) -> float:
    """Return by how much a bucket of that size and refill would have been overdrawn, 0 or less where never."""
    worst = 0.0
    for first, start in enumerate(moments):
        for last in range(first, len(moments)):
            worst = max(worst, (last - first + 1) - burst - rate * (moments[last] - start))
    return worst


def run(bench: Bench, events: Iterable[Event], *, code: str) -> dict[str, list[float]]:
    """Return when calls were admitted, by operation."""
    seen: dict[str, list[float]] = {operation: [] for operation in OPERATIONS}
    for pause, operation, callers, retry_after in events:
        bench.clock.now += pause
        for caller in range(callers):
            if bench.ask(operation, f"/{operation}/{caller}") is not None:
                continue
            seen[operation].append(bench.clock.now)
            if retry_after is not None and caller == callers - 1:
                bench.refused(operation, f"/{operation}/{caller}", code=code, after=retry_after)
            else:
                bench.budget.answered(operation)
    return seen


@given(EVENTS, st.sampled_from(["", "Throttled", "SubscriptionRequestsThrottled"]))
def test_never_more_than_our_share_in_any_window(events: list[Event], code: str) -> None:
    seen = run(Bench(), events, code=code)
    together = sorted(moment for operation in OF_AKS for moment in seen[operation])
    assert most_in_any_window(together, burst=BURST, rate=RATE) <= 1e-6
    assert most_in_any_window(seen[CLUSTER], burst=BURST, rate=RATE) <= 1e-6
    assert most_in_any_window(seen[PUT], burst=100, rate=5) <= 1e-6


@given(EVENTS, st.sampled_from(OPERATIONS), st.floats(1, 90))
def test_nothing_is_sent_in_a_pause_that_azure_has_asked_for(
    events: list[Event], throttled: str, retry_after: float
) -> None:
    bench = Bench()
    run(bench, events, code="Throttled")
    bench.refused(throttled, "/x", code="Throttled", message="exceeded for SubID='s'", after=retry_after)
    until = bench.clock.now + retry_after
    while bench.clock.now < until - 1e-6:
        assert bench.ask(throttled, "/y") is not None
        bench.clock.now += retry_after / 7


@given(
    st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=120),
    st.floats(0, 0.2),
    st.none() | st.floats(1, 90),
)
def test_everybody_is_admitted_in_the_end(callers: list[str], luck: float, retry_after: float | None) -> None:
    bench = Bench()
    for operation in OF_AKS:
        bench.use_up(operation)
    if retry_after is not None:
        throttle_all(bench, after=retry_after)
        bench.refused(LIST, "/z", code="Throttled", after=retry_after)
    queue = [(bench.clock.now, number, operation) for number, operation in enumerate(callers)]
    heapq.heapify(queue)
    asked = 0
    while queue:
        bench.clock.now, number, operation = heapq.heappop(queue)
        wait = bench.ask(operation, f"/{number}")
        asked += 1
        if wait is None:
            bench.budget.answered(operation)
            continue
        assert wait.seconds > 0
        heapq.heappush(queue, (bench.clock.now + wait.seconds * (1 + luck * (number % 7) / 7), number, operation))
        assert asked < 60 * len(callers), "they go round and round"
    # Were each of them let through at the slowest pace there is.
    assert bench.clock.now - 1000.0 <= 90 + 2 * 60.0 * len(callers) + 300
