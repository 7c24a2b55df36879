"""Values as people have them."""

from typing import Any, Final

import yaml

SUBSCRIPTION: Final = "6e2f0d6c-5a0b-4a53-9f5e-3f6f1f0f8a51"
TENANT: Final = "8b7a4d1e-0d5c-4c59-a1d2-2f4a7a1d9f10"
CLIENT: Final = "1f4b7c2a-93de-4f07-8a55-b1c2d3e4f506"

# The least that installs charts/gpu-provisioner.
LEAST: Final[dict[str, Any]] = {
    "settings": {"azure": {"subscriptionId": SUBSCRIPTION, "resourceGroup": "models", "clusterName": "gpus"}},
    "workloadIdentity": {"clientId": CLIENT},
}

# What Azure/gpu-provisioner's own script makes of its template, which is what its users have.
PEER: Final[dict[str, Any]] = yaml.safe_load(f"""
replicas: 1
controller:
  env:
    - name: ARM_SUBSCRIPTION_ID
      value: {SUBSCRIPTION}
    - name: LOCATION
      value: eastus
    - name: AZURE_CLUSTER_NAME
      value: gpus
    - name: AZURE_NODE_RESOURCE_GROUP
      value: MC_models_gpus_eastus
    - name: ARM_RESOURCE_GROUP
      value: models
    - name: LEADER_ELECT
      value: "false"
    - name: E2E_TEST_MODE
      value: "false"
workloadIdentity:
  clientId: {CLIENT}
  tenantId: {TENANT}
""")

# Its values.yaml with the blanks filled in, as some copy it: every key that its chart has.
PEER_WHOLE: Final[dict[str, Any]] = yaml.safe_load(f"""
nameOverride: ""
fullnameOverride: ""
additionalLabels: {{}}
additionalAnnotations: {{}}
imagePullPolicy: IfNotPresent
imagePullSecrets: []
service:
  annotations: {{}}
serviceAccount:
  create: true
  name: ""
  annotations: {{}}
additionalClusterRoleRules: []
serviceMonitor:
  enabled: false
  additionalLabels: {{}}
  endpointConfig: {{}}
replicas: 1
revisionHistoryLimit: 10
strategy:
  rollingUpdate:
    maxUnavailable: 1
podLabels: {{}}
podAnnotations: {{}}
podDisruptionBudget:
  name: gpu-provisioner
  maxUnavailable: 1
podSecurityContext:
  fsGroup: 1000
priorityClassName: system-cluster-critical
terminationGracePeriodSeconds:
hostNetwork: false
dnsPolicy: Default
dnsConfig: {{}}
nodeSelector:
  kubernetes.io/os: linux
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: kubernetes.azure.com/cluster
              operator: Exists
            - key: type
              operator: NotIn
              values: [virtual-kubelet]
            - key: kubernetes.io/os
              operator: In
              values: [linux]
        - matchExpressions:
            - key: karpenter.sh/provisioner-name
              operator: DoesNotExist
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
tolerations:
  - key: CriticalAddonsOnly
    operator: Exists
extraVolumes: []
controller:
  image:
    repository: mcr.microsoft.com/aks/kaito/gpu-provisioner
    tag: 0.4.0
    digest: ""
  securityContext: {{}}
  env:
    - name: ARM_SUBSCRIPTION_ID
      value: {SUBSCRIPTION}
    - name: LOCATION
      value:
    - name: AZURE_CLUSTER_NAME
      value: gpus
    - name: ARM_RESOURCE_GROUP
      value: models
    - name: LEADER_ELECT
      value: "false"
    - name: E2E_TEST_MODE
      value: "false"
  envFrom: []
  resources:
    requests:
      cpu: 200m
    limits:
      cpu: 500m
  outputPaths: [stdout]
  errorOutputPaths: [stderr]
  logLevel: debug
  logEncoding: ""
  metrics:
    port: 8080
  healthProbe:
    port: 8081
logLevel: debug
logEncoding: console
workloadIdentity:
  clientId: {CLIENT}
  tenantId: {TENANT}
settings:
  azure:
    clusterName:
deploymentMode: self-hosted
""")
