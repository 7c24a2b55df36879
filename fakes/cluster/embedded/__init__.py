"""A Kubernetes control plane in one Python process: ready in a second, everything in memory, no Go and no etcd.

It is for contributors and newcomers, and for tests that need speed. The real one (`fakes.cluster.real`) is right where
the two differ; `tests/semantics` runs on both and says what is promised here.

It serves the kinds that are listed in `resources`, and CustomResourceDefinitions with validation, defaulting and
pruning; watches, patches, server-side apply, deletion with finalizers and owners, evictions, tables, discovery and
schemas: enough for kubectl get, describe, apply, diff, patch, wait and delete. What kube-controller-manager and
kube-scheduler do for nodes, pods, DaemonSets, StatefulSets and Jobs is in `controllers`.

What it does not do, and refuses where silence would deceive:

* Rules in CEL (x-kubernetes-validations) are not evaluated, but for `self == oldSelf`. A CRD with others is
  taken with a warning.
* Webhooks and admission policies are not served, so 404. Conversion webhooks: a CRD with one is refused; objects of
  several versions are one and the same but for apiVersion.
* RBAC: roles and bindings are kept and not looked at. Whoever has a token may do everything; without a token nobody
  gets in. Tokens of service accounts are no JWTs, and nobody can ask who he is.
* Deployments and ReplicaSets are refused. Quotas, limit ranges, cron jobs, autoscalers, endpoints and what else is
  missing from the kinds: not served, so 404. So are the subresources scale, binding and finalize.
* Pods get no token volume and no environment of services. Services lead nowhere, claims of volumes stay pending, and
  there are no logs. A StatefulSet with volume templates or with pods all at once is refused.
* Scheduling knows resources, node selectors, required node affinity and taints. No preemption, no pod affinity, no
  spreading, no volumes. Nodes are tainted by their readiness and by cordons, not by pressure; a pod that tolerates
  NoExecute for some seconds only stays.
* Jobs start again at once where the real ones wait, and count the pods that are there; no indexes, deadlines or time
  to live. There are no ControllerRevisions to roll back to, and all rollouts are of one pod at a time.
* Strategic merge patches do not bring items into an order. Server-side apply keeps no managedFields; what else is
  simplified there is in `ownership`.
* No protobuf, in which kubectl sends `create configmap`, `create token`, `drain` and the like: 415. Manifests are JSON.
* No priority and fairness, no aggregated APIs, no aggregated discovery, no OpenAPI v2; `kubectl explain`
  has no descriptions of built-in kinds.
"""

from fakes.cluster.embedded.cluster import EmbeddedCluster

__all__ = ["EmbeddedCluster"]
