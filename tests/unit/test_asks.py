"""One claim finds out for all whether an offer can be had."""

from datetime import timedelta

from provisioner.nodeclaim.asks import PATIENCE, Ask, Asks
from provisioner.placement.market import Offer
from provisioner.placement.size import Size
from tests.unit.builders import A100, NOW, T4

OFFER = Offer(size=Size(name=A100), capacity_type="on-demand")
ZONAL = Offer(size=Size(name=A100), capacity_type="on-demand", zones=("1", "2"))
OTHER = Offer(size=Size(name=T4), capacity_type="on-demand")


def begun(offer: Offer = OFFER) -> Asks:
    asks = Asks()
    asks.begin("first", Ask(pool="a", offer=offer, begun=NOW))
    return asks


def tried(asks: Asks, offer: Offer = OFFER, *, uid: str = "second", later: timedelta = timedelta(0)) -> bool:
    return asks.is_tried_by_another(offer, uid=uid, now=NOW + later)


def test_others_wait_while_an_offer_is_tried_for_the_first_time() -> None:
    assert tried(begun())


def test_who_tries_does_not_wait_for_himself() -> None:
    assert not tried(begun(), uid="first")


def test_other_sizes_and_placements_are_not_held_up() -> None:
    assert not tried(begun(), OTHER)
    assert not tried(begun(), ZONAL)


def test_one_zone_in_common_is_enough_to_wait() -> None:
    overlapping = Offer(size=Size(name=A100), capacity_type="on-demand", zones=("2", "3"))
    assert tried(begun(ZONAL), overlapping)


def test_request_without_an_answer_holds_nobody_up_for_long() -> None:
    assert tried(begun(), later=PATIENCE - timedelta(seconds=1))
    assert not tried(begun(), later=PATIENCE)


def test_all_others_go_once_the_first_was_accepted_until_that_is_long_ago() -> None:
    asks = begun()
    asks.accepted("first", now=NOW)
    assert not tried(asks)
    assert not tried(asks, later=timedelta(minutes=9))
    asks.begin("third", Ask(pool="c", offer=OFFER, begun=NOW + timedelta(minutes=11)))
    assert tried(asks, later=timedelta(minutes=11))


def test_refusal_makes_the_next_one_try_alone_again() -> None:
    asks = begun()
    asks.accepted("first", now=NOW)
    asks.refused(OFFER.keys)
    assert tried(asks)


def test_claims_that_waited_are_named_once_when_the_answer_is_there() -> None:
    asks = begun()
    asks.wait("b")
    asks.wait("c")
    assert asks.end("first") == {"b", "c"}
    assert asks.end("first") == frozenset()
    assert not tried(asks)


def test_requests_of_others_are_known_by_their_pools() -> None:
    asks = begun()
    assert set(asks.others("second")) == {"a"}
    assert asks.others("first") == {}
