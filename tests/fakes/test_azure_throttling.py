import json
from typing import Literal

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest
from hypothesis import given
from hypothesis import strategies as st

from fakes.azure import FakeAzure, ResourceIds, Settings
from fakes.azure.errors import AzureError
from fakes.azure.throttling import Throttle, TokenBucket
from tests.fakes.sdk import Client, answer_of, code_of
from tests.fakes.simulated import ManualTime


def test_a_bucket_gives_its_size_at_once_and_then_its_rate() -> None:
    time = ManualTime()
    bucket = TokenBucket(size=3, refill=0.5, now=time)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 2]
    time.advance(1)
    assert bucket.take() == 1
    time.advance(1)
    assert [bucket.take(), bucket.take()] == [0, 2]


def test_a_bucket_never_holds_more_than_its_size() -> None:
    time = ManualTime()
    bucket = TokenBucket(size=2, refill=1, now=time)
    time.advance(1000)
    assert [bucket.take(), bucket.take(), bucket.take()] == [0, 0, 1]


@given(st.lists(st.floats(min_value=0, max_value=300), max_size=60), st.integers(1, 30), st.floats(0.01, 30))
def test_whoever_waits_as_long_as_told_is_served(pauses: list[float], size: int, refill: float) -> None:
    time = ManualTime()
    bucket = TokenBucket(size=size, refill=refill, now=time)
    for pause in pauses:
        time.advance(pause)
        wait = bucket.take()
        if wait:
            time.advance(wait)
            assert bucket.take() == 0


@given(st.lists(st.floats(min_value=0, max_value=10), max_size=200))
def test_no_more_is_given_than_size_and_rate_allow(pauses: list[float]) -> None:
    time = ManualTime()
    bucket = TokenBucket(size=5, refill=0.25, now=time)
    given_out = 0
    for pause in pauses:
        time.advance(pause)
        given_out += bucket.take() == 0
    assert given_out <= 5 + time.seconds * 0.25 + 1e-6


class Limits:
    """A throttle in time that a test moves."""

    def __init__(self, *, put_pool_scope: Literal["pool", "cluster"] = "pool") -> None:
        self.time = ManualTime()
        self.settings = Settings(put_pool_scope=put_pool_scope)
        self.throttle = Throttle(ResourceIds(), settings=self.settings, now=self.time)

    def allowed(self, operation: str, *, pool: str = "", bound: int = 500) -> int:
        """Return how many calls are let through before the first that is not."""
        for count in range(bound):
            try:
                self.throttle.provider(operation, pool=pool)
            except AzureError:
                return count
        return bound


@pytest.mark.parametrize(
    ("operation", "burst"),
    [
        ("agentPools.put", 20),
        ("managedClusters.get", 60),
        ("operations.get", 200),
        ("agentPools.get", 60),
        ("machines.list", 60),
        ("agentPools.getUpgradeProfile", 60),
        ("agentPools.delete", 60),
        ("skus.list", 500),
    ],
)
def test_the_bursts_of_the_aks_resource_provider(operation: str, burst: int) -> None:
    assert Limits().allowed(operation, pool="gpu1") == burst


def test_puts_refill_at_one_a_minute() -> None:
    limits = Limits()
    limits.allowed("agentPools.put", pool="gpu1")
    limits.time.advance(150)
    assert limits.allowed("agentPools.put", pool="gpu1") == 2


def test_each_pool_has_its_own_bucket_of_puts() -> None:
    limits = Limits()
    assert limits.allowed("agentPools.put", pool="gpu1") == 20
    assert limits.allowed("agentPools.put", pool="gpu2") == 20


def test_by_the_other_reading_all_pools_share_one() -> None:
    limits = Limits(put_pool_scope="cluster")
    assert limits.allowed("agentPools.put", pool="gpu1") == 20
    assert limits.allowed("agentPools.put", pool="gpu2") == 0


def test_all_other_calls_share_one_bucket() -> None:
    limits = Limits()
    assert limits.allowed("agentPools.list") == 60
    assert limits.allowed("agentPools.delete", pool="gpu1") == 0
    assert limits.allowed("operations.get") == 200


def test_compute_has_a_limit_of_its_own_if_it_is_told() -> None:
    limits = Limits()
    assert limits.allowed("usages.list") == 500
    limits.settings.compute_reads_per_minute = 30
    assert limits.allowed("usages.list") == 30
    assert limits.allowed("skus.list") == 0
    limits.time.advance(4)
    assert limits.allowed("skus.list") == 2
    assert limits.allowed("agentPools.list") == 60


async def test_the_sdk_gets_computes_429_in_computes_words(client: Client, azure: FakeAzure) -> None:
    azure.settings.change({"compute_reads_per_minute": 1, "scale": 2})
    path = f"/subscriptions/{azure.ids.subscription}/providers/Microsoft.Compute/skus?api-version=2021-07-01"
    assert (await client.send_request(HttpRequest("GET", path))).status_code == 200
    answer = await client.send_request(HttpRequest("GET", path))
    assert answer.status_code == 429
    # A token a minute of simulated time, of which the first answer took some.
    assert 20 <= int(answer.headers["Retry-After"]) <= 30
    error = answer.json()["error"]
    assert (error["code"], error["details"][0]["code"]) == ("OperationNotAllowed", "TooManyRequests")
    assert "too many requests have been received for this subscription" in error["message"]
    assert json.loads(error["details"][0]["message"])["allowedRequestCount"] == 1


async def test_reads_of_compute_take_from_arms_bucket(client: Client, azure: FakeAzure) -> None:
    azure.settings.scale = 0.01
    path = f"/subscriptions/{azure.ids.subscription}/providers/Microsoft.Compute/locations/eastus/usages"
    request = HttpRequest("GET", f"{path}?api-version=2026-04-01")
    statuses = [(await client.send_request(request)).status_code for _ in range(252)]
    assert statuses.count(200) in (250, 251)
    answer = await client.send_request(request)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "SubscriptionRequestsThrottled"
    assert int(answer.headers["Retry-After"]) >= 1


def test_throttling_can_be_off_and_buckets_refilled() -> None:
    limits = Limits()
    limits.allowed("agentPools.list")
    limits.settings.throttling = False
    assert limits.allowed("agentPools.list") == 500
    assert limits.throttle.arm("GET") == {}
    limits.settings.throttling = True
    limits.throttle.reset()
    assert limits.allowed("agentPools.list") == 60


@pytest.mark.parametrize(
    ("method", "kind", "burst"),
    [("GET", "reads", 250), ("PUT", "writes", 200), ("POST", "writes", 200), ("DELETE", "deletes", 200)],
)
def test_arm_has_a_bucket_of_its_own_for_each_class_of_request(method: str, kind: str, burst: int) -> None:
    limits = Limits()
    for left in range(burst - 1, -1, -1):
        assert limits.throttle.arm(method) == {f"x-ms-ratelimit-remaining-subscription-{kind}": str(left)}
    with pytest.raises(AzureError, match=f"Number of '{kind[:-1]}' requests for subscription") as caught:
        limits.throttle.arm(method)
    assert (caught.value.status, caught.value.code) == (429, "SubscriptionRequestsThrottled")
    assert "error" in caught.value.body()


@pytest.mark.parametrize(("scope", "refused"), [("pool", "gpu1"), ("cluster", "gpu2")])
async def test_the_sdk_gets_429_with_a_retry_after_on_the_scaled_clock(
    client: Client, azure: FakeAzure, scope: Literal["pool", "cluster"], refused: str
) -> None:
    azure.settings.scale = 2
    azure.settings.put_pool_scope = scope
    azure.settings.max_agent_pools = 1

    async def put(pool: str) -> HttpResponseError:
        with pytest.raises(HttpResponseError) as caught:
            await client.agent_pools.begin_create_or_update(
                azure.ids.resource_group, azure.ids.cluster, pool, {"properties": {"vmSize": "Standard_NC4as_T4_v3"}}
            )
        return caught.value

    for _ in range(20):
        assert (await put("gpu1")).status_code == 400
    error = await put(refused)
    assert error.status_code == 429
    assert code_of(error) == "Throttled"
    assert "The PutAgentPoolHandler.PUT request limit has been exceeded for" in error.message
    # A token a minute of simulated time, of which the twenty calls took some.
    assert 20 <= int(answer_of(error).headers["Retry-After"]) <= 30
    assert "x-ms-ratelimit-remaining-subscription-writes" in answer_of(error).headers
    if scope == "pool":
        assert (await put("gpu2")).status_code == 400
