{{- /* Selects the controller's own pods where somebody has left out whom to keep apart: (list $ $terms). Changes them. */}}
{{- define "gpu-provisioner.select" -}}
{{- $selector := dict "matchLabels" (include "gpu-provisioner.selectorLabels" (index . 0) | fromYaml) }}
{{- range index . 1 }}
{{- if not (hasKey . "labelSelector") }}
{{- $_ := set . "labelSelector" $selector }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gpu-provisioner.affinity" -}}
{{- $affinity := deepCopy .Values.affinity }}
{{- $root := . }}
{{- range list "podAffinity" "podAntiAffinity" }}
{{- $terms := get $affinity . | default dict }}
{{- $_ := include "gpu-provisioner.select" (list $root ($terms.requiredDuringSchedulingIgnoredDuringExecution | default list)) }}
{{- range $terms.preferredDuringSchedulingIgnoredDuringExecution }}
{{- $_ := include "gpu-provisioner.select" (list $root (list .podAffinityTerm)) }}
{{- end }}
{{- end }}
{{- toYaml $affinity }}
{{- end }}

{{- define "gpu-provisioner.topologySpreadConstraints" -}}
{{- $constraints := deepCopy .Values.topologySpreadConstraints }}
{{- $_ := include "gpu-provisioner.select" (list . $constraints) }}
{{- toYaml $constraints }}
{{- end }}
