{{- /* What objects are called, and the labels they carry. */}}

{{- define "gpu-provisioner.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "gpu-provisioner.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "gpu-provisioner.name" .) .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "gpu-provisioner.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Of objects without a namespace. KAITO's and Azure/gpu-provisioner's charts end them otherwise. */}}
{{- define "gpu-provisioner.clusterName" -}}
{{ printf "%s-controller" (include "gpu-provisioner.fullname" . | trunc 52 | trimSuffix "-") }}
{{- end }}

{{- define "gpu-provisioner.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "gpu-provisioner.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* As Azure/gpu-provisioner's chart has them: a Deployment's selector cannot be changed by an upgrade. */}}
{{- define "gpu-provisioner.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gpu-provisioner.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gpu-provisioner.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "gpu-provisioner.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.additionalLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of an object, and the annotations that all have; further ones: (list $ $annotations). */}}
{{- define "gpu-provisioner.metadata" -}}
{{- $root := index . 0 }}
{{- $annotations := merge (dict) (index . 1 | default dict) ($root.Values.additionalAnnotations | default dict) -}}
labels:
  {{- include "gpu-provisioner.labels" $root | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "gpu-provisioner.tag" -}}
{{- $image := include "gpu-provisioner.imageValues" . | fromYaml -}}
{{ default .Chart.AppVersion $image.tag }}
{{- end }}

{{- /* The image that is meant. One of Azure/gpu-provisioner's, as in a copy of its values, has another program in it. */}}
{{- define "gpu-provisioner.imageValues" -}}
{{- if hasSuffix "aks/kaito/gpu-provisioner" (.Values.controller.image.repository | default "") -}}
repository: gpu-provisioner
{{- else -}}
{{ toYaml .Values.controller.image }}
{{- end }}
{{- end }}

{{- define "gpu-provisioner.image" -}}
{{- $image := include "gpu-provisioner.imageValues" . | fromYaml -}}
{{ $image.repository }}:{{ include "gpu-provisioner.tag" . }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}
