"""Launch where there is something to find out before Azure is asked, or nothing to ask for."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.nodeclass import read_spec
from provisioner.apis.quota import Scope, Shortage
from provisioner.nodeclaim.view import CreatePool
from provisioner.placement.market import Because, LeftOut, Placement
from provisioner.placement.size import Size
from tests.unit.builders import A100, LOCATION, Region, claim, placement_of, recorded_claim, requirement, view
from tests.unit.test_launch import after, launched


def test_claim_waits_for_usages_that_are_being_read() -> None:
    draft = after(view(claim(), is_quota_known=False))
    assert (draft.azure, draft.annotations, draft.wants_quota) == (None, {}, True)
    assert launched(draft) == ("Unknown", "AwaitingReconciliation")


def test_claim_lets_another_one_find_out_whether_its_offer_can_be_had() -> None:
    draft = after(view(claim(), is_tried_by_another=True))
    assert (draft.azure, draft.annotations, draft.waits_for_another) == (None, {}, True)
    assert draft.again_after == timedelta(seconds=10)


def test_claim_without_quota_asks_nothing_and_waits_for_newer_usages() -> None:
    shortage = Shortage(scope=Scope.FAMILY, family="standardNCADSA100v4Family", region=LOCATION, needed=24, left=6)
    failure = Failure(kind=FailureClass.QUOTA, message=shortage.message, shortage=shortage)
    left = LeftOut(size=A100, because=Because.QUOTA, message=shortage.message, failure=failure)
    draft = after(view(claim(), placement=Placement(left_out=(left,), unavailable=failure)))
    assert launched(draft) == ("False", "QuotaExceeded")
    assert (draft.azure, draft.annotations, draft.add_finalizer, draft.wants_quota) == (None, {}, False, True)
    assert draft.again_after == timedelta(minutes=10)


def test_labels_of_an_offer_that_is_given_up_go_with_it() -> None:
    both = requirement(names.CAPACITY_TYPE_LABEL, "In", "spot", "on-demand")
    given = {names.CAPACITY_TYPE_LABEL: "spot", names.ZONE_LABEL: f"{LOCATION}-1", "team": "vision"}
    draft = after(view(asked(both, recorded=A100, labels=given), placement=only_on_demand(both)))
    assert draft.labels[names.CAPACITY_TYPE_LABEL] == "on-demand"
    assert draft.labels[names.ZONE_LABEL] == "0"
    assert "team" not in draft.labels


def asked(*requirements: Any, recorded: str, labels: dict[str, str]) -> NodeClaim:
    """A claim that was given an offer before."""
    sizes = requirement(names.INSTANCE_TYPE_LABEL, "In", A100)
    return recorded_claim(
        requirements=[sizes, *requirements],
        labels=labels,
        annotations={names.INSTANCE_TYPE_ANNOTATION: recorded},
    )


def only_on_demand(*requirements: Any) -> Placement:
    """What is left when spot cannot be had."""
    found = placement_of(asked(*requirements, recorded=A100, labels={}))
    return Placement(offers=tuple(offer for offer in found.offers if offer.capacity_type == "on-demand"))


PROFILE = names.GPU_INSTANCE_PROFILE_ANNOTATION


def partitioned_by(profile: str) -> Placement:
    """What is offered where the class has GPUs partitioned so."""
    cut = Region(sizes=[Size(name=A100, gpu_count=7, gpu_instance_profile=profile)])
    return placement_of(claim(), sizes=cut)


def test_profile_of_the_gpus_is_on_the_claim_before_azure_hears_of_the_pool() -> None:
    draft = after(view(claim(), placement=partitioned_by("MIG1g")))
    assert draft.annotations[PROFILE] == "MIG1g"
    assert isinstance(draft.azure, CreatePool)
    assert draft.azure.body["properties"]["gpuInstanceProfile"] == "MIG1g"
    assert PROFILE not in after(view(claim())).annotations


@pytest.mark.parametrize(("recorded", "now"), [("MIG1g", "MIG2g"), ("MIG1g", ""), ("", "MIG2g")])
def test_profile_that_is_another_by_now_is_recorded_anew(recorded: str, now: str) -> None:
    there = recorded_claim(annotations={PROFILE: recorded} if recorded else {})
    placement = partitioned_by(now) if now else placement_of(there)
    draft = after(view(there, placement=placement))
    assert draft.annotations[PROFILE] == now


def test_profile_that_is_recorded_is_not_recorded_again() -> None:
    there = recorded_claim(annotations={PROFILE: "MIG1g"})
    draft = after(view(there, placement=partitioned_by("MIG1g")))
    assert PROFILE not in draft.annotations


def test_pool_is_asked_for_as_the_class_says_at_that_moment() -> None:
    said, _ = read_spec({"maxPods": 42})
    draft = after(view(claim(), node_class=said))
    assert isinstance(draft.azure, CreatePool)
    assert draft.azure.body["properties"]["maxPods"] == 42
    assert names.DEVICE_PLUGIN_ANNOTATION not in draft.annotations


def test_device_plugin_that_is_not_expected_is_on_the_claim_before_its_class_can_go() -> None:
    said, _ = read_spec({"devicePlugin": "Ignored"})
    assert after(view(claim(), node_class=said)).annotations[names.DEVICE_PLUGIN_ANNOTATION] == "Ignored"
