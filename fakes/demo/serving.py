"""The demo's pod for real: vLLM on CPU, run by the pod's own command, answers a chat at the endpoint."""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp

from fakes.cluster import binaries
from fakes.cluster.api import ApiClient
from fakes.containers import NETWORK, ProcessRunner
from fakes.nodes import NodeSettings
from fakes.serving.image import Weights, serving_image
from provisioner.serving.environment import PORT
from provisioner.workspace.settings import WorkspaceSettings

# Where they stay when the demo has ended, for whoever wants to know what vLLM said.
LOGS: Final = binaries.cache_root(room="demo")
_LOGS: Final = "*/*.log"
# As the program of the serving image writes them.
_OWN_LINE: Final = re.compile(r"[\d-]{10} [\d:]{8},\d{3} [A-Z]+ (.*)")
_CORE: Final = "/api/v1/namespaces/default"
_QUESTION: Final = "What does a GPU node do all day?"
_TOKENS: Final = 40
_TIMEOUT: Final = 60.0
# What of the container's environment says how the model is served; the rest is where things are.
_SHOWN: Final = ("MODEL", "SERVED_MODEL_NAMES", "DTYPE", "MAX_MODEL_LEN", "GPU_MEMORY_UTILIZATION", "TOOL_CALL_PARSER")


class NoAnswer(Exception):
    """The model was asked and did not answer; the message tells what was there instead."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where a Service leads: what kube-proxy would do with its address."""

    service: str
    address: str
    pod: Mapping[str, Any]
    port: int

    @property
    def url(self) -> str:
        """Where the pod itself is."""
        return f"http://{self.pod['status']['podIP']}:{self.port}"


class Serving:
    """What runs the pods of the serving image, and asks them. Needs a running loop: weights are made at once.

    `python` is that of the environment with vLLM. What `logs` has of an earlier run is taken away.
    """

    def __init__(self, python: Path, *, folder: Path, logs: Path) -> None:
        self._logs = logs
        # How far each has been read.
        self._read: dict[Path, int] = {}
        for log in logs.glob(_LOGS):
            log.unlink(missing_ok=True)
        weights = Weights(folder / "tiny", python=python)
        image = serving_image(python=python, folder=folder / "image", weights=weights)
        # The default of the controller, which nobody tells another one here.
        name = WorkspaceSettings.model_fields["serving_image"].default
        self.runner = ProcessRunner({name: image}, folder=folder / "pods", logs=logs)
        self.nodes = NodeSettings(pod_network=NETWORK)

    def introduction(self) -> str:
        """Return what is real and what is not."""
        return (
            "The pod's container really runs, as a process: `serving serve` with the variables, the ConfigMap and the\n"
            "probes that the controller writes, vLLM on CPU behind it. What is put in its place:\n"
            "  weights    a model of 140,000 random parameters, in the pod's cache under the name of the large one\n"
            "  options    those for CPU in the ConfigMap, as a user would write them\n"
            "  variables  SERVING_ROOT, BIND_ADDRESS, HF_HUB_OFFLINE, PYTHONPATH, and the paths of mounts\n"
            "Its seconds are real ones: while it loads and while it ends, simulated time runs no faster."
        )

    def news(self) -> list[str]:
        """Return what the pods' programs have said since this was asked last; vLLM's own lines stay in the log."""
        found = []
        for log in sorted(self._logs.glob(_LOGS)):
            with log.open("rb") as file:
                file.seek(self._read.get(log, 0))
                whole, end, _ = file.read().rpartition(b"\n")
                self._read[log] = self._read.get(log, 0) + len(whole + end)
            _, _, pod = log.parent.name.partition("_")
            lines = whole.decode(errors="replace").splitlines()
            found += [f"pod {pod} says: {line[1]}" for line in map(_OWN_LINE.fullmatch, lines) if line]
        return found

    def how_to_ask(self) -> str:
        """Return what to type for an answer of a pod."""
        return f"  kubectl get pods -o wide  # and, once it is Ready: curl http://ITS_IP:{PORT}/v1/models"

    def log_of(self, workspace: str) -> Path:
        """Return where the log of a Workspace's server is."""
        return self.runner.log_of("default", f"{workspace}-0", workspace)

    def last_words(self, lines: int) -> str:
        """Return so many lines of the end of each log."""
        ends = []
        for log in sorted(self._logs.glob(_LOGS)):
            said = log.read_text(errors="replace").splitlines()[-lines:]
            ends += [f"The last words in {log}:", *said]
        return "\n".join(ends)

    async def show(self, client: ApiClient, workspace: str) -> str:
        """Return what the pod runs, and what the model says through the Workspace's Service. Raises NoAnswer."""
        route = await asyncio.to_thread(find_route, client, workspace)
        container = route.pod["spec"]["containers"][0]
        known = {one["name"]: one.get("value", "") for one in container["env"]}
        variables = " ".join(f"{name}={known[name]}" for name in _SHOWN if name in known)
        body = {"messages": [{"role": "user", "content": _QUESTION}], "max_tokens": _TOKENS}
        model, answer, seconds = await _chat(route.url, body)
        said = answer["choices"][0]["message"]["content"]
        tokens = answer["usage"]["completion_tokens"]
        return (
            f"\nThe pod was ready {_seconds_to_ready(route.pod)} real seconds after its start. It runs:\n"
            f"  serving {' '.join(container['args'])} ({variables})\n"
            f"http://{workspace}.default.svc is the Service {route.service}, {route.address}:80, which leads to pod"
            f" {route.pod['metadata']['name']},\n{route.pod['status']['podIP']}:{route.port}. Nobody runs kube-proxy"
            " here, so the pod is asked where it is:\n"
            f"  POST {route.url}/v1/chat/completions\n"
            f"  {json.dumps({'model': model, **body})}\n"
            f"  {said!r}\n"
            f"  {tokens} tokens in {seconds:.2f} s, {tokens / seconds:.0f} a second. The weights are random, and so are"
            " the words.\n"
        )

    async def show_drain(self, client: ApiClient, workspace: str) -> str:
        """Return what the model says while its pod is being deleted. Raises NoAnswer."""
        pod = await asyncio.to_thread(client.request, "GET", f"{_CORE}/pods/{workspace}-0")
        port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
        body = {"messages": [{"role": "user", "content": _QUESTION}], "max_tokens": _TOKENS}
        _, answer, _ = await _chat(f"http://{pod['status']['podIP']}:{port}", body)
        grace = pod["metadata"].get("deletionGracePeriodSeconds", 0)
        return (
            f"\nThe pod is being deleted, with {grace} real seconds to do so, and answers still:"
            f" {answer['usage']['completion_tokens']} tokens.\n"
            "It takes requests for 15 s more, until endpoints would have forgotten it, answers them, and ends.\n"
        )


def find_route(client: ApiClient, workspace: str) -> Route:
    """Return where a Workspace's Service leads. Raises NoAnswer: no pod that is ready is behind it."""
    service = client.request("GET", f"{_CORE}/services/{workspace}")
    selector = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
    pods = client.request("GET", f"{_CORE}/pods?labelSelector={selector}")["items"]
    for pod in pods:
        if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or ()):
            return Route(
                service=workspace,
                address=service["spec"].get("clusterIP", ""),
                pod=pod,
                port=service["spec"]["ports"][0]["targetPort"],
            )
    raise NoAnswer(f"no pod that is ready is behind the Service {workspace}")


async def _chat(url: str, body: Mapping[str, Any]) -> tuple[str, Any, float]:
    """Return the model's name, its answer and the seconds that it took."""
    try:
        async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as session:
            async with session.get("/v1/models") as answer:
                model = (await answer.json())["data"][0]["id"]
            began = time.monotonic()
            async with session.post("/v1/chat/completions", json={"model": model, **body}) as answer:
                if answer.status != 200:
                    raise NoAnswer(f"the model answers {answer.status}: {(await answer.text())[:500]}")
                return model, await answer.json(), time.monotonic() - began
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NoAnswer(f"the model does not answer at {url}: {error}") from error


def _seconds_to_ready(pod: Mapping[str, Any]) -> int:
    ready = next(one["lastTransitionTime"] for one in pod["status"]["conditions"] if one["type"] == "Ready")
    spent = datetime.fromisoformat(ready) - datetime.fromisoformat(pod["status"]["startTime"])
    return round(spent.total_seconds())
