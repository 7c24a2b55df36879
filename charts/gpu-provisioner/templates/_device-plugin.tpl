{{- define "gpu-provisioner.devicePluginName" -}}
{{ printf "%s-device-plugin" (include "gpu-provisioner.fullname" . | trunc 49 | trimSuffix "-") }}
{{- end }}

{{- /* Whether to bring the device plugin: "true", or nothing. */}}
{{- define "gpu-provisioner.devicePlugin" -}}
{{- if eq (toString .Values.devicePlugin.enabled) "true" -}}
true
{{- else if eq (toString .Values.devicePlugin.enabled) "auto" }}
{{- if not (include "gpu-provisioner.otherDevicePlugin" .) -}}
true
{{- end }}
{{- end }}
{{- end }}

{{- /*
Which DaemonSet of somebody else runs NVIDIA's device plugin already, such as KAITO's: NAMESPACE/NAME, or nothing. Two on
one node take the kubelet's socket from each other.
*/}}
{{- define "gpu-provisioner.otherDevicePlugin" -}}
{{- $root := . }}
{{- $found := list }}
{{- range (lookup "apps/v1" "DaemonSet" "" "" | default dict).items }}
{{- $set := . }}
{{- $annotations := .metadata.annotations | default dict }}
{{- $ours := and (eq (index $annotations "meta.helm.sh/release-name" | default "") $root.Release.Name) (eq (index $annotations "meta.helm.sh/release-namespace" | default "") $root.Release.Namespace) }}
{{- if not $ours }}
{{- range .spec.template.spec.containers }}
{{- if contains "k8s-device-plugin" (splitList "@" .image | first) }}
{{- $found = append $found (printf "%s/%s" $set.metadata.namespace $set.metadata.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with $found }}{{ first . }}{{ end }}
{{- end }}
