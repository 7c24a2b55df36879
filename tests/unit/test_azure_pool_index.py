"""Pools by the claim of their tag: always the ones that going through all of them would find."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.apis.agentpool import AgentPool
from provisioner.azure.inventory import SETTLE, Inventory
from provisioner.azure.pool_index import PoolIndex
from tests.unit.builders import peers_pool, pool, users_pool
from tests.unit.virtual_time import now, virtual_time

NAMES = ("a", "b", "c")
UIDS = ("uid-1", "uid-2")

_pools = st.builds(pool, st.sampled_from(NAMES), uid=st.sampled_from(("", *UIDS)), state=st.just("Succeeded"))
_listings = st.lists(_pools, max_size=3, unique_by=lambda pool: pool.name).map(tuple)
# A LIST, a pool that was created, the name of one that is deleted, or of one that is doubtful, after so many seconds.
_happenings = st.tuples(
    st.sampled_from((0.0, 3.0)),
    st.one_of(
        st.tuples(st.just("list"), _listings),
        st.tuples(st.just("created"), _pools),
        st.tuples(st.sampled_from(("deleting", "doubtful")), st.sampled_from(NAMES)),
    ),
)


class Azure:
    """Lists what it is told to."""

    def __init__(self) -> None:
        self.pools: tuple[AgentPool, ...] = ()

    async def list(self) -> tuple[AgentPool, ...]:
        return self.pools


def inventory(azure: Azure) -> Inventory:
    return Inventory(
        azure,
        clock=now,
        busy=lambda: False,
        on_change=lambda _: None,
        busy_interval=5.0,
        idle_interval=60.0,
        settle=4.0,
    )


def test_pools_of_a_claim_are_found_under_whatever_name_and_those_without_a_tag_by_name_alone() -> None:
    mine, copied, others = pool("a", uid="uid-1"), pool("z", uid="uid-1"), pool("b", uid="uid-2")
    index = PoolIndex([mine, others, users_pool("u"), peers_pool("p"), copied])
    assert index.of_claim("uid-1") == (mine, copied)
    assert index.of_claim("uid-2") == (others,)
    assert index.of_claim("uid-3") == ()
    assert index.of_claim("") == ()
    assert set(index.by_name) == {"a", "b", "p", "u", "z"}


def test_pool_of_the_same_name_for_another_claim_takes_the_others_place() -> None:
    index = PoolIndex([pool("a", uid="uid-1")])
    index.put(pool("a", uid="uid-2"))
    assert index.of_claim("uid-1") == ()
    assert index.of_claim("uid-2") == (pool("a", uid="uid-2"),)
    index.put(users_pool("a"))
    assert index.of_claim("uid-2") == ()
    assert dict(index.by_name) == {"a": users_pool("a")}


def test_pool_that_was_dropped_is_nobodys_and_dropping_what_is_not_there_is_no_error() -> None:
    index = PoolIndex([pool("a", uid="uid-1"), pool("b", uid="uid-1"), users_pool("u")])
    for name in ("a", "u", "a", "never"):
        index.drop(name)
    assert index.of_claim("uid-1") == (pool("b", uid="uid-1"),)
    assert set(index.by_name) == {"b"}


@virtual_time
async def test_own_writes_are_found_by_claim_before_any_list_has_them() -> None:
    azure = Azure()
    known = inventory(azure)
    await known.refresh()
    known.note_created(pool("a", uid="uid-1", state="Creating"))
    assert known.of_claim("uid-1") == (pool("a", uid="uid-1", state="Creating"),)
    known.note_deleting("a")
    assert known.of_claim("uid-1") == (pool("a", uid="uid-1", state="Deleting"),)
    known.note_doubtful("a")
    assert known.of_claim("uid-1") == ()
    azure.pools = (pool("a", uid="uid-1", state="Failed"),)
    await known.refresh()
    assert known.of_claim("uid-1") == (pool("a", uid="uid-1", state="Failed"),)
    azure.pools = ()
    await asyncio.sleep(SETTLE)
    await known.refresh()
    assert known.of_claim("uid-1") == ()


@settings(max_examples=200, deadline=None)
@given(happenings=st.lists(_happenings, max_size=12))
def test_whatever_happens_the_claims_pools_are_those_that_a_look_at_each_name_shows(
    happenings: list[tuple[float, tuple[str, tuple[AgentPool, ...] | AgentPool | str]]],
) -> None:
    @virtual_time
    async def run() -> None:
        azure = Azure()
        known = inventory(azure)
        for wait, (what, about) in happenings:
            if isinstance(about, tuple):
                azure.pools = about
                await known.refresh()
            elif isinstance(about, AgentPool):
                known.note_created(about)
            elif what == "deleting":
                known.note_deleting(about)
            else:
                known.note_doubtful(about)
            shown = {name: state for name in NAMES if isinstance(state := known.lookup(name), AgentPool)}
            assert dict(known.pools) == shown
            for uid in UIDS:
                mine = {pool.name: pool for pool in shown.values() if pool.claim_uid == uid}
                assert {pool.name: pool for pool in known.of_claim(uid)} == mine
            await asyncio.sleep(wait)

    run()
