{{- /* Refuses values without which the controller would end at its start. */}}
{{- define "gpu-provisioner.required" -}}
{{- $values := .Values }}
{{- /* What is read from Secrets and ConfigMaps is not known here. */}}
{{- if not $values.controller.envFrom }}
{{- $given := dict }}
{{- range $values.controller.env }}
{{- if or (hasKey . "valueFrom") .value }}
{{- $_ := set $given .name true }}
{{- end }}
{{- end }}
{{- $missing := list }}
{{- range $key, $names := dict
    "subscriptionId" (list "ARM_SUBSCRIPTION_ID" "AZURE_SUBSCRIPTION_ID")
    "resourceGroup" (list "ARM_RESOURCE_GROUP" "AZURE_RESOURCE_GROUP")
    "clusterName" (list "AZURE_CLUSTER_NAME") }}
{{- $there := get $values.settings.azure $key }}
{{- range $names }}
{{- $there = or $there (hasKey $given .) }}
{{- end }}
{{- if not $there }}
{{- $missing = append $missing (printf "settings.azure.%s" $key) }}
{{- end }}
{{- end }}
{{- with $missing }}
{{- fail (printf "\n\nNot set: %s.\nThey say which AKS cluster's agent pools are managed: subscription ID, resource group of the cluster (not the MC_ one)\nand name, as `az aks list --output table` and `az account show` tell them. With --set settings.azure.clusterName=..., in a\nvalues file, or as ARM_SUBSCRIPTION_ID, ARM_RESOURCE_GROUP and AZURE_CLUSTER_NAME in controller.env.\n" (join ", " .)) }}
{{- end }}
{{- $annotated := index ($values.serviceAccount.annotations | default dict) "azure.workload.identity/client-id" }}
{{- if and (eq $values.deploymentMode "self-hosted") $values.serviceAccount.create (not $annotated) (not $values.workloadIdentity.clientId) (not (hasKey $given "AZURE_CLIENT_ID")) }}
{{- fail "\n\nNot set: workloadIdentity.clientId.\nIt is the client ID of the user-assigned identity that may manage the cluster's agent pools and is federated with the\nservice account of this release: `az identity show --query clientId ...`. With deploymentMode=managed the identity of\nthe nodes is used instead, and none has to be named.\n" }}
{{- end }}
{{- end }}
{{- end }}
