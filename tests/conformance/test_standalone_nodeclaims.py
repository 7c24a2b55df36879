"""Karpenter's StandaloneNodeClaim specs, which talk to the API server alone, pass on this controller as they are."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from fakes.cluster.real import RealCluster
from tests.conformance.suite import Suite
from tests.kube import NODES, Kube, Object, eventually, is_true
from tests.scenarios.running import Running, running

pytestmark = [
    pytest.mark.real_only("the specs deny writes by admission policies, and have Kubernetes' own controllers delete"),
    pytest.mark.asyncio(loop_scope="module"),
]

FOLDER = Path(__file__).parent
SUBJECT = "StandaloneNodeClaim"
SPECS = (
    "should create a standard NodeClaim",
    "should create a standard NodeClaim based on resource requests",
    "should create a NodeClaim propagating all the NodeClaim spec details",
    "should remove the cloudProvider NodeClaim when the cluster NodeClaim is deleted",
    "should delete a NodeClaim from the node termination finalizer",
    "should delete a NodeClaim after the registration timeout when the node doesn't register",
    "should delete a NodeClaim if it references a NodeClass that doesn't exist",
    "should delete a NodeClaim if it references a NodeClass that isn't Ready",
    "should succeed to garbage collect an Instance that was launched by a NodeClaim but has no Instance mapping",
)
# Real seconds, to go with an Azure whose time is scaled.
TIMEOUTS = {"REGISTRATION_TIMEOUT_SECONDS": "4", "LAUNCH_TIMEOUT_SECONDS": "4"}
# A spec takes ten seconds, the first one a half minute more: so often does the garbage collector of Kubernetes look
# which kinds there are. One that does not pass would be given a quarter of an hour by the suite itself.
LIMIT = "120s"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the suite has printed, and how each spec ended that was not left out, by name."""

    output: str
    states: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(karpenter: Suite, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    crds = sorted(karpenter.crds.glob("*.yaml"))
    log = tmp_path_factory.mktemp("conformance") / "controller.log"
    # A control plane of its own: the suite wants it empty, and CRDs that are none of ours.
    with RealCluster() as control_plane:
        await asyncio.to_thread(control_plane.apply, *crds)
        # Our NodeClaim CRD takes the place of Karpenter's.
        async with running(control_plane, log=log, prepare=taint_system_nodes, settings=TIMEOUTS) as cluster:
            yield cluster


async def taint_system_nodes(_: object, kube: Kube) -> None:
    """Keep pods off the system pool, as AKS advises to; the suite refuses to begin without."""
    # What is written on a Node that is not yet ready may be lost to those who make it so.
    nodes = await eventually(lambda: kube.items(NODES), until=are_ready, what="the system pool's Nodes are ready")
    for node in nodes:
        taints = [{"key": "CriticalAddonsOnly", "value": "true", "effect": "NoSchedule"}]
        await kube.patch(NODES, node["metadata"]["name"], {"spec": {"taints": taints}})


def are_ready(nodes: list[Object]) -> bool:
    return bool(nodes) and all(is_true("Ready")(node) and not node["spec"].get("taints") for node in nodes)


Run = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def run(karpenter: Suite, cluster: Running, tmp_path: Path) -> Run:
    """Return a function that runs the suite with options of its own."""
    return partial(run_suite, karpenter.binary, cluster.aks.cluster.kubeconfig, tmp_path)


async def run_suite(binary: Path, kubeconfig: Path, folder: Path, *options: str) -> Outcome:
    report, output = folder / "report.json", folder / "output"
    with output.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            binary,
            f"-default-nodeclass={FOLDER / 'nodeclass.yaml'}",
            f"-default-nodepool={FOLDER / 'nodepool.yaml'}",
            *("-test.v", "-ginkgo.v", "-ginkgo.no-color", f"-ginkgo.timeout={LIMIT}", f"-ginkgo.json-report={report}"),
            *options,
            cwd=folder,
            env={"KUBECONFIG": str(kubeconfig), "HOME": str(folder), "TMPDIR": str(folder)},
            stdout=stream,
            stderr=stream,
        )
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    text = output.read_text(errors="replace")
    assert report.exists(), f"the suite has ended with code {process.returncode}:\n{text}"
    specs = json.loads(report.read_text())[0]["SpecReports"]
    # What comes before and after all specs has no name.
    named = {spec["LeafNodeText"]: spec["State"] for spec in specs if spec["LeafNodeText"]}
    return Outcome(output=text, states={name: state for name, state in named.items() if state != "skipped"})


async def test_these_are_all_the_specs_there_are(run: Run) -> None:
    outcome = await run("-ginkgo.dry-run", f"-ginkgo.focus={SUBJECT}")
    assert tuple(outcome.states) == SPECS, outcome.output


@pytest.mark.parametrize("name", SPECS, ids=[f"spec {number}" for number in range(1, len(SPECS) + 1)])
async def test_spec_passes(run: Run, name: str) -> None:
    outcome = await run(f"-ginkgo.focus={SUBJECT} {re.escape(name)}$")
    assert outcome.states == {name: "passed"}, outcome.output


async def test_nothing_is_left_in_azure_after_them(cluster: Running) -> None:
    async def pools() -> list[str]:
        return [pool["name"] for pool in cluster.aks.pools()]

    await eventually(pools, until=["systempool"].__eq__, what="the system pool is all there is")
