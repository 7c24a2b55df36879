"""A Kubernetes control plane in one Python process: ready in a second, everything in memory, no Go and no etcd.

It is for contributors and newcomers, and for tests that need speed. The real one (`fakes.cluster.real`) is right where
the two differ; `tests/semantics` runs on both and says what is promised here.

It serves core/v1 and the usual kinds of apps, batch, coordination, discovery, networking, policy, rbac, scheduling and
storage; CustomResourceDefinitions with validation, defaulting and pruning; watches, patches, server-side apply,
deletion with finalizers and owners, evictions, tables, discovery and schemas: enough for an unmodified kubectl. What
kube-controller-manager and kube-scheduler do for nodes, pods and their owners is in `controllers`.

What it does not do, and refuses where silence would deceive:

* Rules in CEL (x-kubernetes-validations) are not evaluated, but for `self == oldSelf`. A CRD with others is
  taken with a warning.
* Webhooks, admission policies: creating one is refused. Conversion webhooks: a CRD with one is refused; objects of
  several versions are one and the same but for apiVersion.
* RBAC: roles and bindings are kept and not looked at. Whoever has a token may do everything, and `kubectl auth can-i`
  says so; without a token nobody gets in. Tokens of service accounts are no JWTs.
* Quotas, limit ranges, cron jobs, autoscalers and what else is missing from the kinds: not served, so 404.
* Pods get no token volume and no environment of services. Services and endpoints lead nowhere. There are no logs.
* Scheduling knows resources, node selectors, required node affinity and taints. No preemption, no pod affinity, no
  spreading, no volumes.
* Jobs start again at once where the real ones wait; no indexes, deadlines or time to live. Rollouts of Deployments take
  two steps. There are no ControllerRevisions to roll back to.
* Server-side apply keeps no managedFields; what else is simplified there is in `ownership`.
* No priority and fairness, no aggregated APIs, no protobuf, no OpenAPI v2.
"""

from fakes.cluster.embedded.cluster import EmbeddedCluster

__all__ = ["EmbeddedCluster"]
