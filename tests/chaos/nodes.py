"""What makes Nodes of VMs and takes them away: kubelets, Azure's cloud provider, the garbage collection of owners."""

from typing import Any

from provisioner.apis import names
from tests.chaos.azure import IMAGE, Azure, Pool, Vm, sku
from tests.chaos.objects import NODES, PODS, Change, Objects, Raw
from tests.chaos.world import World

_UNINITIALIZED = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}
_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
# On Nodes of claims that ask for it, until somebody takes it off.
STARTUP_TAINT = "example.com/warming"


class Kubelets:
    """Everybody who keeps Nodes up to date but the controller."""

    def __init__(self, world: World, objects: Objects, azure: Azure) -> None:
        self._world = world
        self._dice = world.dice("nodes")
        self._objects = objects
        self._azure = azure
        azure.on_vm = self._on_vm
        objects.on_change.append(self._on_change)

    def rejoin(self, name: str) -> None:
        """Have the kubelet of a Node that somebody has deleted start anew, where its VM is still there."""
        for pool in self._azure.pools.values():
            if pool.vm is not None and pool.vm.exists and self._name(pool.vm) == name:
                self._join(pool, pool.vm)

    def _name(self, vm: Vm) -> str:
        return self._azure.ids.node_name(vm.pool, vm.number)

    def _on_vm(self, pool: Pool, vm: Vm) -> None:
        world, dice = self._world, self._dice
        if not vm.exists:
            world.after(dice.between(20.0, 60.0), lambda: self._set_ready(vm, "Unknown"))
            # The cloud provider looks every now and then, and takes away the Node of a VM that it does not find.
            world.after(dice.between(5.0, 120.0), lambda: self._take_away(vm))
            return
        if pool.is_foreign:
            # Has been there for long.
            self._objects.create(NODES, self._node(pool, self._name(vm)), by="kubelet")
            self._initialize(vm)
            self._set_ready(vm, "True")
            return
        if world.faults_on and dice.chance(0.08):
            world.fault("node never joins", pool.name)
            return
        boot = dice.short(0.0, 2.0) if self._azure.is_quick else dice.between(20.0, 120.0)
        world.after(boot if pool.state == "Creating" else 0.0, lambda: self._join(pool, vm))

    def _join(self, pool: Pool, vm: Vm) -> None:
        if not vm.exists:
            return
        world, dice, name = self._world, self._dice, self._name(vm)
        if self._objects.get(NODES, name) is None:
            self._objects.create(NODES, self._node(pool, name), by="kubelet")
        # Else the kubelet takes the Node that is there for its own, whosever it was.
        world.after(dice.short(0.1, 20.0), lambda: self._initialize(vm))
        world.after(dice.between(5.0, 40.0), lambda: self._set_ready(vm, "True"))
        if dice.chance(0.1):
            world.after(dice.between(60.0, 300.0), lambda: self._set_ready(vm, "False"))
            world.after(dice.between(301.0, 400.0), lambda: self._set_ready(vm, "True"))
        delay = dice.between(10.0, 240.0)
        if world.faults_on and dice.chance(0.1):
            world.fault("GPUs late", name)
            delay = dice.between(600.0, 1800.0)
        world.after(delay, lambda: self._register_gpus(pool, vm))
        world.after(dice.between(30.0, 400.0), lambda: self._warm_up(name))

    def _warm_up(self, name: str) -> None:
        """Take startup taints off, as the DaemonSet does for which they are there; they come with the registration."""
        node = self._objects.get(NODES, name)
        if node is None:
            return
        taints = node["spec"].get("taints") or []
        left = [taint for taint in taints if taint["key"] != STARTUP_TAINT]
        if len(left) < len(taints):
            self._objects.patch(NODES, name, {"spec": {"taints": left}}, by="DaemonSet")
        else:
            self._world.after(60.0, lambda: self._warm_up(name))

    def _node(self, pool: Pool, name: str) -> Raw:
        taints = [_parse_taint(text) for text in pool.properties.get("nodeTaints") or ()]
        resources = {"cpu": str(sku(pool.size).vcpus), "memory": "64Gi", "pods": "110"}
        return {
            "metadata": {
                "name": name,
                "labels": {
                    **(pool.properties.get("nodeLabels") or {}),
                    "agentpool": pool.name,
                    "kubernetes.io/hostname": name,
                    names.AKS_AGENT_POOL_LABEL: pool.name,
                    names.AKS_NODE_IMAGE_VERSION_LABEL: IMAGE,
                    names.OS_LABEL: "linux",
                    names.ARCH_LABEL: "amd64",
                },
            },
            "spec": {"taints": [*taints, _UNINITIALIZED, _NOT_READY]},
            "status": {
                "conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady"}],
                "capacity": resources,
                "allocatable": resources,
            },
        }

    def _initialize(self, vm: Vm) -> None:
        name = self._name(vm)
        node = self._objects.get(NODES, name)
        if node is None or not vm.exists:
            return
        pool = self._azure.pools[vm.pool]
        patch: dict[str, Any] = {
            "metadata": {
                "labels": {names.INSTANCE_TYPE_LABEL: pool.size, names.REGION_LABEL: self._azure.ids.location}
            },
            "spec": {
                "providerID": self._azure.ids.provider_id(vm.pool, vm.number),
                "taints": [taint for taint in node["spec"].get("taints") or () if taint != _UNINITIALIZED],
            },
        }
        self._objects.patch(NODES, name, patch, by="cloud provider")

    def _set_ready(self, vm: Vm, status: str) -> None:
        name = self._name(vm)
        node = self._objects.get(NODES, name)
        if node is None or (status == "Unknown") == vm.exists or self._is_anothers(vm):
            return
        conditions = [{"type": "Ready", "status": status, "reason": "Kubelet"}]
        self._objects.patch(NODES, name, {"status": {"conditions": conditions}}, sub="status", by="kubelet")
        node = self._objects.get(NODES, name)
        taints = [taint for taint in (node or {"spec": {}})["spec"].get("taints") or () if taint != _NOT_READY]
        self._objects.patch(
            NODES,
            name,
            {"spec": {"taints": taints if status == "True" else [*taints, _NOT_READY]}},
            by="node lifecycle",
        )

    def _is_anothers(self, vm: Vm) -> bool:
        pool = self._azure.pools.get(vm.pool)
        return pool is not None and pool.vm is not None and pool.vm is not vm and pool.vm.exists

    def _register_gpus(self, pool: Pool, vm: Vm) -> None:
        name = self._name(vm)
        if vm.exists and self._objects.get(NODES, name) is not None:
            gpus = {names.NVIDIA_GPU: str(sku(pool.size).private.gpu_count)}
            patch = {"status": {"capacity": gpus, "allocatable": gpus}}
            self._objects.patch(NODES, name, patch, sub="status", by="kubelet")

    def _take_away(self, vm: Vm) -> None:
        name = self._name(vm)
        if not self._is_anothers(vm) and self._objects.get(NODES, name) is not None:
            self._objects.delete(NODES, name, by="cloud provider")

    def _on_change(self, change: Change) -> None:
        if change.after is not None:
            return
        uid, name = change.last["metadata"]["uid"], change.last["metadata"]["name"]
        world, dice = self._world, self._dice
        world.after(dice.between(0.5, 10.0), lambda: self._collect(uid))
        if change.plural == NODES:
            world.after(dice.between(1.0, 60.0), lambda: self._collect_pods(name))

    def _collect(self, owner: str) -> None:
        for plural, key in list(self._objects.orphans_of(owner)):
            if self._objects.get(plural, key) is not None:
                self._objects.delete(plural, key, by="garbage collector")

    def _collect_pods(self, node: str) -> None:
        if self._objects.get(NODES, node) is None:
            for pod in self._objects.all(PODS):
                if pod["spec"].get("nodeName") == node:
                    metadata = pod["metadata"]
                    self._objects.delete(PODS, f"{metadata['namespace']}/{metadata['name']}", by="pod collector")


def _parse_taint(text: str) -> Raw:
    key, _, rest = text.partition("=")
    value, _, effect = rest.partition(":")
    return {"key": key, "value": value, "effect": effect}
