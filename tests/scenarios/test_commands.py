"""`skus`, `quota` and `plan` against a whole AKS: tables, documents and exit codes."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from fakes.aks import FakeAks, claim_name
from fakes.azure.faults import Answer
from fakes.azure.settings import Settings as AzureSettings
from fakes.controller import ControllerProcess
from tests.claims import A100, kaito_claim
from tests.conftest import SCALE
from tests.hub import GIB, HubServer
from tests.kube import CLAIMS, NODE_CLASSES, WORKSPACES, Kube, eventually, is_true
from tests.scenarios.asking import PATIENCE, ROOT, ask, assert_told, environment

FAMILY: Final = "StandardNCADSA100v4Family"
H100: Final = "Standard_NC40ads_H100_v5"
CLOSED: Final = "Standard_NCC40ads_H100_v5"

WORKSPACE: Final[Mapping[str, Any]] = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "phi-3"},
    "resource": {"instanceType": A100, "count": 2, "labelSelector": {"matchLabels": {"apps": "phi-3"}}},
    "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
}


@pytest.fixture
def azure_settings() -> AzureSettings:
    return AzureSettings(scale=SCALE, quota={FAMILY: 48}, usage={FAMILY: 20}, prices={A100: 3.5, f"{A100}/spot": 1.25})


def forbid(aks: FakeAks, operation: str) -> None:
    """Let the identity lack the right to a call."""
    action = {"skus.list": "skus/read", "usages.list": "locations/usages/read"}[operation]
    message = f"The client does not have authorization to perform action 'Microsoft.Compute/{action}' over scope '/'."
    body = {"error": {"code": "AuthorizationFailed", "message": message}}
    aks.azure.add_fault(Answer(operation=operation, status=403, body=body, times=None))


# skus


async def test_skus_are_gpu_sizes_with_price_zones_and_quota(aks: FakeAks) -> None:
    ended = await ask(aks, "skus")

    assert (ended.code, ended.err) == (0, "")
    assert ended.rows[A100] == [A100, "A100", "1", "80", "24", "220", "3.500", "1,3", "28/48"]
    assert "Standard_D4s_v5" not in ended.out
    assert "closed to this subscription" in " ".join(ended.rows[CLOSED])
    prices = [float(words[-3]) for words in ended.rows.values() if words[-1] == "28/48"]
    assert prices == sorted(prices)
    assert len(prices) == 3


async def test_skus_for_scripts(aks: FakeAks) -> None:
    ended = await ask(aks, "skus", "--gpu", "A100", "--available", "-o", "json")

    document = ended.json
    (size,) = [size for size in document["sizes"] if size["name"] == A100]
    assert (ended.code, document["region"]) == (0, aks.azure.ids.location)
    assert (size["pricePerHour"], size["spotPricePerHour"], size["vmsThatFit"]) == (3.5, 1.25, 1)
    assert size["quota"] == {"name": FAMILY, "limit": 48, "used": 20, "left": 28}
    assert all(size["gpu"] == "A100" and size["available"] for size in document["sizes"])
    assert "Standard_NC48ads_A100_v4" not in {size["name"] for size in document["sizes"]}


async def test_skus_of_spot_vms(aks: FakeAks) -> None:
    aks.azure.settings.quota = {"lowPriorityCores": 30}

    ended = await ask(aks, "skus", "--gpu", "A100", "--spot")

    assert ended.rows[A100][-3:] == ["1.250", "1,3", "30/30"]


async def test_skus_that_nobody_sells_are_not_available(aks: FakeAks) -> None:
    assert (await ask(aks, "skus", "--gpu", "Z9000")).code == 3


async def test_skus_without_a_price_list_have_the_prices_that_are_built_in(aks: FakeAks) -> None:
    ended = await ask(aks, "skus", "--gpu", "A100", PRICING_ENDPOINT="https://localhost:1")

    assert ended.code == 0
    assert ended.rows[A100][6] == "3.673"
    assert "the price list could not be read" in ended.err


async def test_region_that_azure_does_not_have_is_told(aks: FakeAks) -> None:
    for command in ("skus", "quota"):
        ended = await ask(aks, command, "--region", "westmars", PRICING_ENDPOINT="none")

        assert_told(ended, 2, "westmars", "no VM sizes")


async def test_reader_that_has_gone_ends_it_in_silence(aks: FakeAks) -> None:
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "provisioner", "skus", "--all", "-o", "json"),
        cwd=ROOT,
        env=environment(aks),
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(write)
    async with asyncio.timeout(PATIENCE):
        _, err = await process.communicate()

    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("command", ["skus", "quota"])
async def test_identity_that_may_not_read_sizes_is_told(aks: FakeAks, command: str) -> None:
    forbid(aks, "skus.list")

    assert_told(await ask(aks, command), 1, "Microsoft.Compute/skus/read")


async def test_skus_come_without_quota_where_it_may_not_be_read(aks: FakeAks) -> None:
    forbid(aks, "usages.list")

    ended = await ask(aks, "skus", "--gpu", "A100")

    assert (ended.code, ended.rows[A100][-1]) == (0, "?")
    assert "quota cannot be read" in ended.err


# quota


async def test_quota_says_what_is_left_and_what_fits(aks: FakeAks) -> None:
    ended = await ask(aks, "quota")

    assert (ended.code, ended.err) == (0, "")
    assert ended.rows[FAMILY] == [FAMILY, "48", "20", "28", "1", "x", A100]
    assert "Total Regional vCPUs" in ended.out


# What is required, and the exit code.
REQUIRED = [(("1", A100.lower()), 0), (("2", A100), 3), (("1", CLOSED), 3)]


@pytest.mark.parametrize(("required", "code"), REQUIRED, ids=["fits", "too many", "closed"])
async def test_quota_answers_scripts_by_its_exit_code(aks: FakeAks, required: tuple[str, str], code: int) -> None:
    ended = await ask(aks, "quota", "--require", required[0], "--size", required[1], "-o", "json")

    assert ended.code == code
    assert ended.json["require"]["fits"] is (code == 0)


async def test_size_that_does_not_exist_is_told(aks: FakeAks) -> None:
    assert_told(await ask(aks, "quota", "--require", "1", "--size", "Standard_nope"), 2, "Standard_nope", "no VM size")


# plan


async def test_plan_of_claims_sees_what_each_takes(aks: FakeAks, tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump_all([kaito_claim("ws1"), kaito_claim("ws2")]))

    ended = await ask(aks, "plan", "-f", str(file))

    assert (ended.code, ended.err) == (3, "")
    assert f"NodeClaim ws1 ({file}): would be created" in ended.out
    assert f"offer       {A100}, on-demand, 1 x A100 80 GiB, regional, 87 GiB OS disk, 3.500 $/h" in ended.out
    assert f"NodeClaim ws2 ({file}): cannot be had now" in ended.out
    assert "24 needed, 4 left (limit 48, 24 held" in ended.out
    assert ended.rows[FAMILY] == [FAMILY, "48", "20", "0", "28", "24", "4"]
    assert "1 of 2 would be created: 3.500 $/h." in ended.out
    assert [pool["name"] for pool in aks.pools()] == ["systempool"]


async def test_plan_is_what_the_controller_then_does(aks: FakeAks, kube: Kube, controller: ControllerProcess) -> None:
    name = claim_name()
    ended = await ask(aks, "plan", "-f", "-", "-o", "json", "--show-body", stdin=yaml.safe_dump(kaito_claim(name)))
    (planned,) = ended.json["claims"]

    await kube.create(CLAIMS, kaito_claim(name))
    await kube.wait_claim(name, is_true("Launched"))

    (pool,) = [pool for pool in aks.pools() if pool["name"] == planned["agentPool"]]
    assert (ended.code, planned["outcome"]) == (0, "create")
    for key in ("vmSize", "osDiskSizeGB", "osSKU", "nodeTaints", "count", "mode"):
        assert pool["properties"][key] == planned["body"]["properties"][key]


async def test_plan_of_a_workspace_is_one_claim_for_each_node(aks: FakeAks) -> None:
    ended = await ask(aks, "plan", "-f", "-", "-o", "yaml", stdin=json.dumps(WORKSPACE))

    document = yaml.safe_load(ended.out)
    (workspace,) = document["workspaces"]
    assert (ended.code, ended.err) == (3, "")
    assert (workspace["nodes"], workspace["instanceTypes"]) == (2, [A100])
    assert workspace["layout"]["pipelineParallel"] == 2
    assert [(claim["name"], claim["outcome"]) for claim in document["claims"]] == [
        ("phi-3 1/2", "create"),
        ("phi-3 2/2", "unavailable"),
    ]


async def test_plan_of_a_workspace_finds_its_size(aks: FakeAks) -> None:
    ended = await ask(aks, "plan", "-f", str(ROOT / "docs" / "examples" / "workspace.yaml"))

    assert (ended.code, ended.err) == (0, "")
    assert "would be given 1 NodeClaim" in ended.out
    assert "model     microsoft/Phi-4-mini-instruct, 7.2 GiB of weights" in ended.out
    assert "runs on   1 x Standard_NC4as_T4_v3: tensor parallel 1; " in ended.out
    assert "1 of 1 would be created: " in ended.out
    assert [pool["name"] for pool in aks.pools()] == ["systempool"]


# The published examples, and the claims that each gets: what they name was retired since.
EXAMPLES = [("workspace-phi-3", 87), ("workspace-phi-3-adapters", 87), ("workspace-phi-3-tuning", 187)]


@pytest.mark.parametrize(("name", "disk"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
async def test_plan_of_a_published_example(aks: FakeAks, name: str, disk: int) -> None:
    text = (ROOT / "tests" / "examples" / f"{name}.yaml").read_text()
    # One place of theirs for a name that is the reader's to fill in is looked at: no Secret could have such a name.
    filled = text.replace("ACR_REGISTRY_SECRET_HERE", "registry")
    ended = await ask(aks, "plan", "-f", "-", "-o", "json", "--show-body", stdin=filled)

    (workspace,) = ended.json["workspaces"]
    (body,) = workspace["nodeClaims"]
    assert (workspace["reason"], workspace["nodes"]) == (None, 1)
    assert "is retired by Azure since 2025-09-30" in workspace["sizing"]
    assert body["spec"]["resources"]["requests"]["storage"] == f"{disk}Gi"
    (claim,) = ended.json["claims"]
    # Whether a retired size can still be had is Azure's to say.
    assert (ended.code, claim["outcome"]) == (0, "create")
    assert any("retired" in note for note in claim["notes"])


async def test_plan_of_a_workspace_is_what_its_controller_then_writes(aks: FakeAks, kube: Kube, tmp_path: Path) -> None:
    ended = await ask(aks, "plan", "-f", "-", "-o", "json", "--show-body", stdin=json.dumps(WORKSPACE))
    (workspace,) = ended.json["workspaces"]
    settings = {"KUBECONFIG": str(aks.cluster.kubeconfig), "HF_ENDPOINT": "none"}

    async with ControllerProcess(settings, log=tmp_path / "workspaces.log", command="workspace"):
        await kube.create(WORKSPACES, WORKSPACE)
        claims = await eventually(lambda: kube.items(CLAIMS), until=lambda found: len(found) == workspace["nodes"])
        await kube.delete(WORKSPACES, WORKSPACE["metadata"]["name"])
        await kube.wait_gone(WORKSPACES, WORKSPACE["metadata"]["name"])

    def written(body: Mapping[str, Any]) -> tuple[Any, ...]:
        return body["spec"], body["metadata"]["labels"], sorted(body["metadata"]["annotations"])

    assert [written(claim) for claim in claims] == [written(body) for body in workspace["nodeClaims"]]


async def test_plan_of_a_model_of_the_hub(aks: FakeAks) -> None:
    subject = {**WORKSPACE, "inference": {"preset": {"name": "acme/tiny"}}, "resource": {"labelSelector": {}}}
    async with HubServer({"acme/tiny": 8 * GIB}) as hub:
        asked = await ask(
            aks, "plan", "-f", "-", "-o", "json", stdin=json.dumps(subject), HF_ENDPOINT=hub.url, HF_TOKEN="hf_x"
        )
        tokens = list(hub.tokens)
        unasked = await ask(
            aks, "plan", "-f", "-", "--no-lookup", "-o", "json", stdin=json.dumps(subject), HF_ENDPOINT=hub.url
        )
        assert hub.tokens == tokens

    assert (asked.code, asked.json["workspaces"][0]["model"]["weightsGiB"]) == (0, 8.0)
    assert set(tokens) == {"Bearer hf_x"}
    assert (unasked.code, unasked.json["workspaces"][0]["reason"]) == (3, "ModelLookupFailed")
    assert_told(await ask(aks, "plan", "-f", "-", stdin=json.dumps(subject), HF_ENDPOINT="ftp://x"), 2, "HF_ENDPOINT")


async def test_plan_of_a_workspace_that_is_wrong_says_what_its_conditions_would(aks: FakeAks) -> None:
    wrong = {**WORKSPACE, "inference": {"preset": {"name": "falcon-7b"}}}

    ended = await ask(aks, "plan", "-f", "-", stdin=json.dumps(wrong))

    assert (ended.code, ended.err) == (4, "")
    assert "UnknownPreset: inference.preset.name: 'falcon-7b' is no preset." in ended.out


async def test_plan_of_what_cannot_be_is_refused_for_good(aks: FakeAks) -> None:
    wrong = kaito_claim("ws1", instance_type="Standard_NC24_A100")

    ended = await ask(aks, "plan", "-f", "-", stdin=yaml.safe_dump(wrong))

    assert ended.code == 4
    assert "UnknownInstanceType" in ended.out


async def test_plan_asks_the_cluster_for_the_order_of_sizes(aks: FakeAks, kube: Kube) -> None:
    claim = kaito_claim("ws1")
    claim["spec"]["requirements"] = [
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [H100, A100]}
    ]
    node_class = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": "default"}}
    listed = {**node_class, "spec": {"sizePreference": "Listed"}}

    async def chosen(*objects: Mapping[str, Any], **settings: str) -> str:
        ended = await ask(aks, "plan", "-f", "-", "-o", "json", stdin=yaml.safe_dump_all(objects), **settings)
        assert ended.code == 0
        return str(ended.json["claims"][0]["offer"]["vmSize"])

    assert await chosen(claim) == A100
    assert await chosen(claim, listed) == H100
    await kube.create(NODE_CLASSES, listed)
    assert await chosen(claim) == H100
    assert await chosen(claim, KUBECONFIG="/does/not/exist") == A100


async def test_plan_without_kubernetes_says_so(aks: FakeAks) -> None:
    ended = await ask(aks, "plan", "-f", "-", stdin=yaml.safe_dump(kaito_claim("ws1")), KUBECONFIG="/does/not/exist")

    assert ended.code == 0
    assert "Kubernetes is not asked (there is no file /does/not/exist)" in ended.err


async def test_plan_goes_on_without_sizes_and_quota_that_may_not_be_read(aks: FakeAks) -> None:
    forbid(aks, "skus.list")
    forbid(aks, "usages.list")

    ended = await ask(aks, "plan", "-f", "-", "-o", "json", stdin=yaml.safe_dump(kaito_claim("ws1")))

    assert (ended.code, ended.json["claims"][0]["outcome"], ended.json["quotas"]) == (0, "create", [])
    assert "Grant Microsoft.Compute/skus/read" in ended.err
    assert "Grant Microsoft.Compute/locations/usages/read" in ended.err
