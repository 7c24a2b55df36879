{{- /* From values to environment variables. */}}

{{- /* A scalar as text. Numbers of values are floats, which templates write as 2.592e+06. */}}
{{- define "gpu-provisioner.text" -}}
{{ if kindIs "string" . }}{{ . }}{{ else if kindIs "slice" . }}{{ join "," . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{- /* Variables by name, of the section `settings`: those of settings.azure by table, all others by their own names. */}}
{{- define "gpu-provisioner.settings" -}}
{{- $azure := dict
    "subscriptionId" "ARM_SUBSCRIPTION_ID"
    "resourceGroup" "ARM_RESOURCE_GROUP"
    "clusterName" "AZURE_CLUSTER_NAME"
    "cloud" "AZURE_CLOUD"
    "armEndpoint" "ARM_ENDPOINT"
    "armAudience" "ARM_AUDIENCE"
    "authorityHost" "AZURE_AUTHORITY_HOST"
    "pricingEndpoint" "PRICING_ENDPOINT"
    "requestShare" "AZURE_REQUEST_SHARE" }}
{{- $variables := dict }}
{{- range $key, $value := .Values.settings }}
{{- if eq $key "azure" }}
{{- range $name, $variable := $azure }}
{{- $_ := set $variables $variable (get $value $name) }}
{{- end }}
{{- else }}
{{- $_ := set $variables (snakecase $key | upper) $value }}
{{- end }}
{{- end }}
{{- toYaml $variables }}
{{- end }}

{{- /* The list for a container: (dict "root" $ "own" $variables), with controller.env, which wins. */}}
{{- define "gpu-provisioner.env" -}}
{{- $values := .root.Values }}
{{- $reserved := dict
    "HEALTH_PROBE_PORT" "controller.healthProbe.port"
    "METRICS_PORT" "controller.metrics.port"
    "DEPLOYMENT_MODE" "deploymentMode"
    "LEASE_NAMESPACE" "the namespace of the release" }}
{{- $given := list }}
{{- $named := list }}
{{- range $values.controller.env }}
{{- if hasKey $reserved .name }}
{{- fail (printf "controller.env sets %s, which comes from %s: probes, ports and rights go by that" .name (get $reserved .name)) }}
{{- end }}
{{- $named = append $named .name }}
{{- if hasKey . "valueFrom" }}
{{- $given = append $given . }}
{{- else if not (kindIs "invalid" .value) }}
{{- $given = append $given (dict "name" .name "value" (include "gpu-provisioner.text" .value)) }}
{{- end }}
{{- end }}
{{- $variables := merge (dict) .own (include "gpu-provisioner.settings" .root | fromYaml) }}
{{- $_ := set $variables "LOG_LEVEL" (default $values.logLevel $values.controller.logLevel) }}
{{- $_ := set $variables "LOG_FORMAT" (ternary "text" "json" (eq (default $values.logEncoding $values.controller.logEncoding) "console")) }}
{{- $_ := set $variables "HEALTH_PROBE_PORT" $values.controller.healthProbe.port }}
{{- $_ := set $variables "METRICS_PORT" ($values.controller.metrics.port | default "") }}
{{- $_ := set $variables "LEADER_ELECTION" true -}}
- name: LEASE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- range $name, $value := $variables }}
{{- $text := include "gpu-provisioner.text" $value }}
{{- if and (ne $text "") (ne $text "null") (not (has $name $named)) }}
- name: {{ $name }}
  value: {{ $text | quote }}
{{- end }}
{{- end }}
{{- with $given }}
{{ toYaml . }}
{{- end }}
{{- end }}
