{{- /* Whether a CRD is this release's to write: (list $ $name). "true", or nothing. */}}
{{- define "gpu-provisioner.ownsCrd" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name | default dict }}
{{- $annotations := dig "metadata" "annotations" dict $there | default dict }}
{{- $release := index $annotations "meta.helm.sh/release-name" | default "" }}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" }}
{{- if or (not $there) $root.Values.crds.adopt (and (eq $release $root.Release.Name) (eq $namespace $root.Release.Namespace)) -}}
true
{{- else if and $root.Release.IsUpgrade (ne (index $annotations "helm.sh/resource-policy" | default "") "keep") }}
{{- /* Helm deletes what was in the last revision and is not in this one, whoever owns it by now. */}}
{{- $deployment := lookup "apps/v1" "Deployment" $root.Release.Namespace (include "gpu-provisioner.fullname" $root) | default dict }}
{{- $had := dig "metadata" "annotations" dict $deployment | default dict }}
{{- if has $name (splitList "," (index $had "gpu-provisioner.kaito.sh/crds" | default "")) }}
{{- fail (printf "\n\nThe CustomResourceDefinition %s was this release's and is release %s/%s's by now, without the annotation that keeps it.\nThis upgrade would have Helm delete it, with all of its objects. First run\n  kubectl annotate customresourcedefinition %s helm.sh/resource-policy=keep\n" $name $namespace $release $name) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The names of the CRDs that are this release's, by commas. */}}
{{- define "gpu-provisioner.ownCrds" -}}
{{- $names := list }}
{{- if .Values.crds.install }}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" }}
{{- $name := ($.Files.Get $path | fromYaml).metadata.name }}
{{- if include "gpu-provisioner.ownsCrd" (list $ $name) }}
{{- $names = append $names $name }}
{{- end }}
{{- end }}
{{- end }}
{{- join "," $names }}
{{- end }}

{{- /* What people have to know about CRDs that are somebody else's. */}}
{{- define "gpu-provisioner.crdNotes" -}}
{{- if .Values.crds.install }}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" }}
{{- $name := ($.Files.Get $path | fromYaml).metadata.name }}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name | default dict }}
{{- if not (include "gpu-provisioner.ownsCrd" (list $ $name)) }}
{{- $annotations := dig "metadata" "annotations" dict $there | default dict }}
{{- $release := index $annotations "meta.helm.sh/release-name" }}

CRD: {{ $name }} was there before and is left as it is
{{- if $release }}, for it belongs to release {{ index $annotations "meta.helm.sh/release-namespace" }}/{{ $release }}{{ end }}. To have this release keep it up to date:
  helm upgrade {{ $.Release.Name }} ... --namespace {{ $.Release.Namespace }} --reset-then-reuse-values --set crds.adopt=true --take-ownership --force-conflicts
(Helm 3 has no --force-conflicts and needs none.)
{{- range dig "spec" "versions" list $there }}
{{- with dig "schema" "openAPIV3Schema" "properties" "spec" "properties" "expireAfter" "default" "" . }}
{{- if ne . "Never" }}
It has claims without spec.expireAfter end after {{ . }}; this release's has them stay.
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
