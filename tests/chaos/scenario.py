"""Who else acts: clients that write and delete claims, people with kubectl and the portal, and what kills processes.

Each seed has a mood of its own, so that some histories are about one kind of trouble and others about all of them.
"""

from collections.abc import Callable
from typing import Any, Final

from provisioner.apis import names
from tests.chaos.apiserver import ApiServer
from tests.chaos.arm import Arm
from tests.chaos.azure import SIZES, Azure, sku
from tests.chaos.nodes import STARTUP_TAINT, Kubelets
from tests.chaos.objects import ATTACHMENTS, CLAIMS, NODE_CLASSES, NODES, PODS, Objects, Raw
from tests.chaos.program import Program
from tests.chaos.world import World
from tests.claims import kaito_claim

# A name that a user's own pool has, names that AKS takes for a pool, and names that it does not.
TAKEN: Final = "gpupool"
_NAMES: Final = ("ws0a", "ws1b", "ws2c", TAKEN, "a-name-with-dashes", "averylongclaimname")


class Scenario:
    """What happens in one history beside the controller's own work. `program` is the controller that runs now."""

    def __init__(
        self,
        world: World,
        *,
        server: ApiServer,
        arm: Arm,
        kubelets: Kubelets,
        start_program: Callable[[], Program],
    ) -> None:
        self._world = world
        self._dice = world.dice("scenario")
        self._server = server
        self._arm = arm
        self._azure: Azure = arm.azure
        self._objects: Objects = server.objects
        self._kubelets = kubelets
        self._start_program = start_program
        self.program = start_program()
        # Seconds in which things go wrong.
        self.length = self._dice.between(300.0, 2400.0)
        self._is_over = False
        self.written = 0

    def begin(self) -> None:
        """Plan everything."""
        dice, azure = self._dice, self._azure
        azure.add_foreign("nodepool1", mode="System")
        if dice.chance(0.3):
            azure.add_foreign(TAKEN)
        if dice.chance(0.4):
            size = dice.pick(SIZES)
            azure.limits[sku(size).family] = sku(size).vcpus * dice.whole(0, 2)
        self.program.start()
        for _ in range(dice.whole(1, 5)):
            self._at(dice.short(0.0, self.length), self._create)
        deeds: tuple[tuple[Callable[[], None], int], ...] = (
            (self._kill, 3),
            (self._restart, 1),
            (self._create, 1),
            (self._delete, 3),
            (self._replace, 1),
            (self._delete_node, 1),
            (self._portal, 1),
            (self._lose_vm, 1),
            (self._touch, 3),
            (self._interrupt_watch, 3),
            (self._lose_server, 1),
            (self._lose_arm, 1),
            (self._change_capacity, 1),
            (self._change_quota, 1),
            (self._unsettle, 1),
            (self._change_class, 1),
            (self._add_pod, 1),
        )
        for deed, often in deeds:
            for _ in range(dice.whole(0, often)):
                self._at(dice.between(0.0, self.length), deed)

    def calm(self) -> None:
        """Let everything be well from here on; what is exhausted may stay so."""
        self._is_over = True
        self._world.faults_on = False
        self._server.is_away = self._server.lacks_crds = self._arm.is_away = False
        self._azure.is_settled = True
        self._objects.protected_pods.clear()
        if self._dice.chance(0.7):
            self._azure.exhausted.clear()
        if not self.program.runs:
            self._begin_anew()

    def delete_all(self) -> None:
        """Delete all claims."""
        for raw in self._objects.all(CLAIMS):
            self._objects.delete(CLAIMS, raw["metadata"]["name"], by="client")

    def _at(self, moment: float, deed: Callable[[], None]) -> None:
        def act() -> None:
            if not self._is_over:
                deed()

        self._world.after(moment, act)

    def _one(self, plural: str) -> Raw | None:
        found = self._objects.all(plural)
        return self._dice.pick(found) if found else None

    # Clients

    def _create(self) -> None:
        name = self._dice.pick(_NAMES)
        if self._objects.get(CLAIMS, name) is None:
            self._write(name)

    def _write(self, name: str) -> None:
        claim = self._claim(name)
        self._objects.create(CLAIMS, claim, by="client")
        self.written += 1
        self._world.trace("client", f"writes claim {name}")
        if self._dice.chance(0.15):
            # Somebody thinks better of it, or another controller above us does.
            self._at(self._dice.short(0.0, 120.0), lambda: self._delete_claim(name))
        if self._dice.chance(0.15):
            self._at(self._dice.short(0.0, 60.0), self._kill)

    def _claim(self, name: str) -> dict[str, Any]:
        dice = self._dice
        claim = kaito_claim(name, instance_type=dice.pick(SIZES))
        spec: dict[str, Any] = claim["spec"]
        if dice.chance(0.4):
            # Not KAITO's: several sizes to choose from, no labels of its.
            del claim["metadata"]["labels"], claim["metadata"]["annotations"]
            sizes = [dice.pick(SIZES) for _ in range(dice.whole(1, 3))]
            spec["requirements"] = [{"key": names.INSTANCE_TYPE_LABEL, "operator": "In", "values": sorted(set(sizes))}]
            spec["resources"] = {"requests": {names.NVIDIA_GPU: "1"}}
            if dice.chance(0.2):
                spec["startupTaints"] = [{"key": STARTUP_TAINT, "effect": "NoSchedule"}]
            if dice.chance(0.2):
                spec["expireAfter"] = f"{dice.whole(5, 90)}m"
            if dice.chance(0.2):
                spec["nodeClassRef"]["name"] = "gold"
        if dice.chance(0.05):
            spec["requirements"] = [{"key": names.INSTANCE_TYPE_LABEL, "operator": "In", "values": ["Standard_NC1"]}]
        return claim

    def _delete(self) -> None:
        claim = self._one(CLAIMS)
        if claim is not None:
            self._delete_claim(claim["metadata"]["name"])
            if self._dice.chance(0.2):
                self._at(self._dice.short(0.0, 60.0), self._kill)

    def _delete_claim(self, name: str) -> None:
        if self._objects.get(CLAIMS, name) is not None:
            self._world.trace("client", f"deletes claim {name}")
            self._objects.delete(CLAIMS, name, by="client")

    def _replace(self) -> None:
        """Delete a claim and write another of its name as soon as that can be."""
        claim = self._one(CLAIMS)
        if claim is None:
            return
        name, uid = claim["metadata"]["name"], claim["metadata"]["uid"]
        self._world.trace("client", f"replaces claim {name}")
        self._objects.delete(CLAIMS, name, by="client")

        def write() -> None:
            present = self._objects.get(CLAIMS, name)
            if self._is_over or (present is not None and present["metadata"]["uid"] != uid):
                return
            if present is None:
                self._write(name)
            else:
                self._world.after(1.0, write)

        write()

    # People

    def _delete_node(self) -> None:
        node = self._one(NODES)
        if node is None or node["metadata"]["labels"][names.AKS_AGENT_POOL_LABEL] == "nodepool1":
            return
        name = node["metadata"]["name"]
        self._world.trace("person", f"deletes Node {name}")
        self._objects.delete(NODES, name, by="person")
        if self._dice.chance(0.5):
            self._world.after(self._dice.between(5.0, 120.0), lambda: self._kubelets.rejoin(name))

    def _portal(self) -> None:
        pools = [pool for pool in self._azure.pools.values() if not pool.is_foreign and pool.state != "Deleting"]
        if pools:
            pool = self._dice.pick(pools)
            self._world.trace("person", f"deletes agent pool {pool.name} in the portal")
            self._azure.take_down(pool)

    def _lose_vm(self) -> None:
        pools = [pool for pool in self._azure.pools.values() if not pool.is_foreign]
        if pools:
            self._world.fault("VM vanishes", (pool := self._dice.pick(pools)).name)
            self._azure.lose_vm(pool)

    def _touch(self) -> None:
        """Write what is nobody's business, to a claim or a Node."""
        dice = self._dice
        plural = dice.pick((CLAIMS, NODES))
        found = self._one(plural)
        if found is None:
            return
        name, value = found["metadata"]["name"], str(dice.whole(1, 1000))
        patch: dict[str, Any] = {"metadata": {dice.pick(("labels", "annotations")): {"example.com/noise": value}}}
        if plural == NODES and dice.chance(0.5):
            taints = [*(found["spec"].get("taints") or ()), {"key": f"example.com/t{value}", "effect": "NoSchedule"}]
            patch = {"spec": {"taints": taints}}
        self._objects.patch(plural, name, patch, by="other writer")

    def _change_class(self) -> None:
        name = "gold"
        if self._objects.get(NODE_CLASSES, name) is None:
            self._objects.create(NODE_CLASSES, {"metadata": {"name": name}, "spec": {}}, by="person")
        elif self._dice.chance(0.5):
            self._objects.delete(NODE_CLASSES, name, by="person")

    def _add_pod(self) -> None:
        """Have a pod on a Node, at times with a volume, or under a budget that does not let it go for a while."""
        node, dice = self._one(NODES), self._dice
        if node is None or len(self._objects.all(PODS)) > 3:
            return
        name, number = node["metadata"]["name"], dice.whole(0, 999)
        key = f"default/pod-{number}"
        if self._objects.get(PODS, key) is not None:
            return
        metadata = {"name": f"pod-{number}", "namespace": "default"}
        self._objects.create(
            PODS, {"metadata": metadata, "spec": {"nodeName": name}, "status": {"phase": "Running"}}, by="scheduler"
        )
        if dice.chance(0.3):
            self._objects.protected_pods.add(key)
            self._world.after(dice.between(10.0, 600.0), lambda: self._objects.protected_pods.discard(key))
        attachment = f"csi-{number}"
        if dice.chance(0.3) and self._objects.get(ATTACHMENTS, attachment) is None:
            spec = {"attacher": "disk.csi.azure.com", "nodeName": name, "source": {"persistentVolumeName": "pv"}}
            self._objects.create(ATTACHMENTS, {"metadata": {"name": attachment}, "spec": spec}, by="scheduler")
            self._detach_later(attachment, key)

    def _detach_later(self, attachment: str, pod: str) -> None:
        def look() -> None:
            if self._objects.get(PODS, pod) is not None:
                self._detach_later(attachment, pod)
            elif self._objects.get(ATTACHMENTS, attachment) is not None:
                self._objects.delete(ATTACHMENTS, attachment, by="attach-detach controller")

        self._world.after(self._dice.between(5.0, 60.0), look)

    # What breaks

    def _kill(self) -> None:
        """Kill the controller, between two steps or around a write, and start it anew; now and then twice in a row."""
        dice, program = self._dice, self.program
        if not program.runs:
            return
        self._world.counts["kills"] += 1
        self._world.fault("kill", f"controller{program.life.number}")
        if dice.chance(0.5):
            program.life.dies_after(dice.whole(0, 60))
        else:
            program.life.dies_at_write(dice.whole(1, 4), steps=int(dice.short(0, 20)))

        def again() -> None:
            self._begin_anew()
            if not self._is_over and dice.chance(0.2):
                self._world.counts["kills"] += 1
                self.program.life.dies_after(dice.whole(1, 400))
                self._world.after(dice.between(0.1, 20.0), again)

        self._world.after(dice.short(0.1, 120.0), again)

    def _restart(self) -> None:
        program = self.program
        if not program.runs:
            return
        self._world.counts["restarts"] += 1
        program.stop()
        self._world.after(self._dice.between(10.0, 30.0), self._begin_anew)

    def _begin_anew(self) -> None:
        self.program.kill()
        self.program.watches.stop()
        self.program = self._start_program()
        self.program.start()

    def _interrupt_watch(self) -> None:
        self.program.watches.interrupt(self._dice.pick((CLAIMS, NODES, NODE_CLASSES)), self._dice.between(1.0, 90.0))

    def _lose_server(self) -> None:
        seconds = self._dice.between(2.0, 180.0)
        self._world.fault("API server away", f"for {seconds:.0f} s")
        self._server.is_away = True
        for plural in (CLAIMS, NODES, NODE_CLASSES):
            self.program.watches.interrupt(plural, seconds)
        self._world.after(seconds, self._find_server)

    def _find_server(self) -> None:
        server = self._server
        server.is_away = False
        if not self._is_over and self._dice.chance(0.5):
            server.lacks_crds = True
            self._world.after(self._dice.short(0.1, 10.0), lambda: setattr(server, "lacks_crds", False))

    def _lose_arm(self) -> None:
        seconds = self._dice.between(10.0, 600.0)
        self._world.fault("ARM away", f"for {seconds:.0f} s")
        self._arm.is_away = True
        self._world.after(seconds, lambda: setattr(self._arm, "is_away", False))

    def _change_capacity(self) -> None:
        size = self._dice.pick(SIZES)
        self._world.trace("azure", f"{size} {'is to be had again' if size in self._azure.exhausted else 'runs out'}")
        self._azure.exhausted ^= {size}

    def _change_quota(self) -> None:
        family = sku(self._dice.pick(SIZES)).family
        self._azure.limits[family] = self._dice.pick((0, 24, 10_000))
        self._world.trace("azure", f"the quota of {family} is {self._azure.limits[family]} now")

    def _unsettle(self) -> None:
        self._azure.is_settled = False
        self._world.fault("cluster is updating", "")
        self._world.after(self._dice.between(30.0, 400.0), lambda: setattr(self._azure, "is_settled", True))
