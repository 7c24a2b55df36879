"""What keeps a Workspace from being served: said in a condition and in an Event, and gone on from once it is put right.

All Workspaces run side by side.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fakes.cluster.interface import ControlPlane
from tests.claims import A100
from tests.kube import CRDS, WORKSPACES, Object, condition, eventually
from tests.scenarios.on_azure import PUT, pools, statuses
from tests.scenarios.on_workspaces import (
    CONFIG_MAPS,
    SECRETS,
    Serving,
    config_map,
    inference,
    registry_secret,
    serving,
    tuning,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

T4 = "Standard_NC4as_T4_v3"
H100 = "Standard_NC40ads_H100_v5"
H100_FAMILY = "StandardNCadsH100v5Family"
USAGES = "usages.list"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serving(control_plane, folder=tmp_path_factory.mktemp("failures")) as started:
        yield started


def adapter(name: str = "one", *, strength: str = "1.0", **source: Any) -> Object:
    return {"source": {"name": name, "image": "registry.example.com/one:1", **source}, "strength": strength}


# What cannot be served as it is written or as things are: the Workspace, reason and what stands in the message.
REFUSED: dict[str, tuple[Object, str, tuple[str, ...]]] = {
    "unknown": (
        inference("unknown", preset="gpt-99"),
        "UnknownPreset",
        ("inference.preset.name: 'gpt-99' is no preset.", "phi-4-mini-instruct", "microsoft/phi-4"),
    ),
    "no-hub": (
        inference("no-hub", preset="acme/model-1"),
        "UnknownPreset",
        ("acme/model-1 is no preset", "HF_ENDPOINT=none"),
    ),
    "large": (
        inference("large", preset="gpt-oss-120b", size=A100, count=1),
        "ModelTooLarge",
        (
            f"GiB are missing on each GPU of {A100} (1 x 80 GiB) for openai/gpt-oss-120b",
            "(121.5 GiB of weights)",
            "Nodes of it would do (resource.count)",
            "Sizes that would do, cheapest first: Standard_",
        ),
    ),
    "old": (
        inference("old", preset="gpt-oss-20b", size=T4),
        "UnsuitableInstanceType",
        (f"resource.instanceType {T4} has", "too old for weights in mxfp4", "Sizes that would do"),
    ),
    "no-size": (
        inference("no-size", size="Standard_NC99"),
        "UnknownInstanceType",
        ("resource.instanceType 'Standard_NC99' is no VM size that is known here.", "Sizes that would do"),
    ),
    "no-map": (
        inference("no-map", config="absent"),
        "ConfigMapNotFound",
        ("inference.config: there is no ConfigMap absent in namespace default. Create it.",),
    ),
    "no-key": (
        inference("no-key", config="keyless"),
        "InvalidConfig",
        ("inference.config: ConfigMap keyless: it has no key inference_config.yaml.",),
    ),
    "no-yaml": (
        inference("no-yaml", config="broken"),
        "InvalidConfig",
        ("inference.config: ConfigMap broken: inference_config.yaml is no YAML in line 2",),
    ),
    "long": (
        inference("long", preset="phi-4", config="endless"),
        "ContextTooLong",
        ("max-model-len is 99999, and microsoft/phi-4 takes 16384 tokens at most.",),
    ),
    "no-secret": (
        inference("no-secret", adapters=[adapter(imagePullSecrets=["absent"])]),
        "SecretNotFound",
        (
            "inference.adapters[0].source.imagePullSecrets: there is no Secret absent in namespace default.",
            "with the key .dockerconfigjson",
        ),
    ),
    "no-token": (
        tuning("no-token", preset={"name": "phi-4", "presetOptions": {"modelAccessSecret": "tokenless"}}),
        "SecretNotFound",
        ("tuning.preset.presetOptions.modelAccessSecret: Secret tokenless has no key HF_TOKEN.",),
    ),
    "no-push": (
        tuning("no-push", pushed_with="absent"),
        "SecretNotFound",
        ("tuning.output.imagePushSecret: there is no Secret absent in namespace default.",),
    ),
    "untunable": (
        tuning("untunable", preset={"name": "gpt-oss-20b"}),
        "InvalidWorkspace",
        ("tuning.preset.name: gpt-oss-20b cannot be tuned here.", "phi-4"),
    ),
}

# What our CRD would refuse, stored under one that had no rules.
STORED: dict[str, tuple[Object, tuple[str, ...]]] = {
    "strength": (
        inference("strength", adapters=[adapter(strength="much")]),
        ("inference.adapters[0].strength: 'much' is no number from 0 to 1.",),
    ),
    "twice": (
        inference("twice", adapters=[adapter("same"), adapter("same")]),
        ("inference.adapters[1].source.name: 'same' is there twice.",),
    ),
    "neither": (
        {**inference("neither"), "inference": {}},
        ("inference.preset, inference.template: neither is there",),
    ),
    "local": (
        tuning("local", input={"urls": ["http://169.254.169.254/metadata"]}),
        ("tuning.input.urls[0]: must be http or https and lead to a host outside of the cluster.",),
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refused(world: Serving) -> Serving:
    """All those that cannot be served."""
    kube = world.kube
    for made in (
        config_map("keyless", other_yaml="vllm: {}"),
        config_map("broken", inference_config_yaml="vllm:\n  - [}"),
        config_map("endless", inference_config_yaml="vllm: {max-model-len: 99999}"),
    ):
        await kube.create(CONFIG_MAPS, made)
    tokenless = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokenless", "namespace": "default"}}
    await kube.create(SECRETS, tokenless)
    await asyncio.gather(*(world.create(body) for body, _, _ in REFUSED.values()))
    return world


async def assert_told(world: Serving, name: str, reason: str, words: tuple[str, ...]) -> None:
    await world.wait_reason(name, "WorkspaceSucceeded", reason)
    workspace = await world.wait(name, lambda _: True)
    resource, concluded = condition(workspace, "ResourceReady"), condition(workspace, "WorkspaceSucceeded")
    assert resource["status"] == concluded["status"] == "False"
    assert resource["reason"] == concluded["reason"] == reason
    assert resource["message"] == concluded["message"]
    for word in words:
        assert word in resource["message"]
    assert await world.wait_event(name, reason) == resource["message"]
    assert await world.claims_of(name) == []


@pytest.mark.parametrize("name", list(REFUSED))
async def test_it_is_said_why(refused: Serving, name: str) -> None:
    _, reason, words = REFUSED[name]
    await assert_told(refused, name, reason, words)


@pytest.mark.parametrize(
    ("name", "path", "made"),
    [
        ("no-map", CONFIG_MAPS, config_map("absent", inference_config_yaml="vllm: {}")),
        ("no-secret", SECRETS, registry_secret("absent")),
    ],
)
async def test_it_goes_on_once_what_was_missing_is_there(refused: Serving, name: str, path: str, made: Object) -> None:
    await refused.wait_reason(name, "ResourceReady", REFUSED[name][1])
    await refused.kube.create(path, made)
    # A look at it, sooner than by itself.
    await refused.kube.patch(WORKSPACES, name, {"metadata": {"labels": {"looked-at": "again"}}})
    await refused.wait_state(name, "Ready")


async def test_config_map_that_is_put_right_is_seen_by_itself(refused: Serving) -> None:
    await refused.wait_reason("no-yaml", "ResourceReady", "InvalidConfig")
    await refused.kube.patch(CONFIG_MAPS, "broken", {"data": {"inference_config.yaml": "vllm: {}"}})
    await refused.wait_state("no-yaml", "Ready")


async def test_what_the_crd_would_refuse_is_told_where_it_is_stored(world: Serving) -> None:
    crd = "workspaces.kaito.sh"
    stored = await world.kube.get(CRDS, crd)
    assert stored is not None
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    versions = [{**version, "schema": {"openAPIV3Schema": loose}} for version in stored["spec"]["versions"]]
    await world.kube.patch(CRDS, crd, {"spec": {"versions": versions}})
    try:
        for body, _ in STORED.values():
            await _create_when_loose(world, body)
        for name, (_, words) in STORED.items():
            await assert_told(world, name, "InvalidWorkspace", words)
    finally:
        await world.kube.patch(CRDS, crd, {"spec": {"versions": stored["spec"]["versions"]}})
    # Under the rules again they can be neither served nor written to, and go all the same.
    for name in STORED:
        await world.delete(name)


async def _create_when_loose(world: Serving, body: Object) -> None:
    """Create what was refused until now: the API server takes a changed CRD over a moment later."""

    async def attempt() -> bool:
        try:
            await world.create(body)
        except Exception:  # noqa: BLE001 -- told by the time that is up
            return False
        return True

    await eventually(attempt, what="the API server takes it")


async def test_quota_of_azure_is_told_and_waited_for(world: Serving) -> None:
    aks = world.aks
    aks.azure.settings.change({"quota": {H100_FAMILY: 8}})
    await world.create(inference("quota", size=H100))

    await world.wait_reason("quota", "NodeClaimReady", "QuotaExceeded")

    (claim,) = await world.claims_of("quota")

    async def both() -> tuple[str, str]:
        told = await world.kube.get(WORKSPACES, "quota")
        launched = await world.kube.claim(claim["metadata"]["name"])
        assert told is not None
        assert launched is not None
        conditions = condition(told, "NodeClaimReady"), condition(launched, "Launched")
        # When it is tried again is told anew each time; usages that are newer than Azure's refusal say more.
        message, of_claim = (each["message"].partition(";")[0] for each in conditions)
        return message, of_claim

    message, _ = await eventually(both, until=lambda words: words[0] == words[1], what="the claim's word for word")
    assert "40 needed, 8 left" in message
    for kind in ("ResourceReady", "WorkspaceSucceeded"):
        found = await world.wait_reason("quota", kind, "QuotaExceeded")
        assert "40 needed, 8 left" in found["message"]
    assert "40 needed, 8 left" in await world.wait_event("quota", "QuotaExceeded")
    assert claim["metadata"]["name"] not in pools(aks)

    # Of a quota that was always there in what the controller reads, it could not see that it came back.
    before = aks.azure.calls.count(USAGES)

    async def read() -> int:
        return aks.azure.calls.count(USAGES) - before

    await eventually(read, what="usages were read without the quota")
    aks.azure.settings.change({"quota": {}})

    await world.wait_state("quota", "Ready")
    (after,) = await world.claims_of("quota")
    assert after["metadata"]["uid"] == claim["metadata"]["uid"]
    assert [status for status in statuses(aks, PUT, pool=claim["metadata"]["name"]) if status == 201] == [201]
