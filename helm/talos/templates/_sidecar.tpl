{{/* Talos as a sidecar of Envoy, also for other charts. A chart that depends on this one writes

  initContainers:
    - {{- include "talos.sidecar.container" .Subcharts.talos | nindent 6 }}
  volumes:
    {{- include "talos.sidecar.volumes" .Subcharts.talos | nindent 4 }}

and `enableServiceLinks: false`, in the namespace of this chart's ConfigMap and Secret. An init container with
`restartPolicy: Always` starts before Envoy and ends after it. */}}

{{- define "talos.sidecar.socket" -}}
/run/talos/authz.sock
{{- end }}

{{- define "talos.sidecar.arguments" -}}
{{- dict "component" "sidecar" "planes" (list "authz") "socket" (include "talos.sidecar.socket" .) "resources" .Values.sidecar.resources "runAsUser" .Values.sidecar.runAsUser "preStopSeconds" 0 | toJson -}}
{{- end }}

{{- define "talos.sidecar.container" -}}
{{- $arguments := include "talos.sidecar.arguments" . | fromJson -}}
{{- $container := include "talos.container" (set $arguments "root" .) | fromYaml -}}
{{- /* Envoy itself checks the sidecar's health: its readiness must not take the whole pod out of service. */ -}}
{{- $container = omit $container "readinessProbe" "lifecycle" -}}
{{- toYaml (set $container "restartPolicy" "Always") -}}
{{- end }}

{{- define "talos.sidecar.volumes" -}}
{{- $arguments := include "talos.sidecar.arguments" . | fromJson -}}
{{- include "talos.volumes" (set $arguments "root" .) -}}
{{- end }}
