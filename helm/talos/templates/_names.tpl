{{/* Names, labels, images, and the planes of each component. */}}

{{/* Name of the chart, or of its alias in a parent chart, as a part of names. */}}
{{- define "talos.name" -}}
{{- default .Chart.Name .Values.nameOverride | lower | replace "_" "-" | replace "." "-" | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* First part of all names. With the longest ending, -public-metrics, it must be a name of a Service: 63 characters, no
dot, and a letter first. */}}
{{- define "talos.fullname" -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $name := include "talos.name" . -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $full }}{{ $full = printf "talos-%s" $full }}{{ end -}}
{{- end -}}
{{- $full | trunc 48 | trimSuffix "-" -}}
{{- end }}

{{/* Selector labels. Takes (root, component); component may be empty. */}}
{{- define "talos.selector" -}}
app.kubernetes.io/name: {{ include "talos.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "talos.labels" -}}
{{ include "talos.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: talos
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "talos.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Deployments of the mode and the planes that each serves, as JSON. */}}
{{- define "talos.components" -}}
{{- if eq .Values.mode "all" -}}
{"all": ["admin", "public", "authz"]}
{{- else if eq .Values.mode "separate" -}}
{"admin": ["admin"], "public": ["public"], "authz": ["authz"]}
{{- else -}}
{"admin": ["admin"], "public": ["public"]}
{{- end -}}
{{- end }}

{{/* Settings of a Deployment, as JSON: the common ones, overridden by its own. */}}
{{- define "talos.workload" -}}
{{- $own := ternary .root.Values.gateway.workload (index .root.Values.workloads .component) (eq .component "gateway") -}}
{{- $workload := mustMergeOverwrite (deepCopy .root.Values.workload) (deepCopy ($own | default dict)) -}}
{{- if and .root.Values.sqlite.enabled (eq .component "all") }}{{ $_ := set $workload "replicas" 1 }}{{ end -}}
{{- toJson $workload -}}
{{- end }}

{{- define "talos.serviceAccountName" -}}
{{- $workload := include "talos.workload" . | fromJson -}}
{{- if $workload.serviceAccount.name -}}
{{ $workload.serviceAccount.name }}
{{- else if $workload.serviceAccount.create -}}
{{ include "talos.fullname" .root }}-{{ .component }}
{{- else -}}
default
{{- end -}}
{{- end }}

{{/* Container ports of the planes, as JSON. */}}
{{- define "talos.ports" -}}
{"admin": 4420, "public": 4421, "metrics": 4422, "authz": 4423}
{{- end }}

{{/* Name of the authz plane's Service. */}}
{{- define "talos.authzService" -}}
{{ include "talos.fullname" . }}-authz
{{- end }}
