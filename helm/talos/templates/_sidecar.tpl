{{/* Talos beside an Envoy, for the pods of other charts, too: a chart that has this one as a dependency writes

  initContainers:
    - {{- include "talos.sidecar.container" .Subcharts.talos | nindent 6 }}
  volumes:
    {{- include "talos.sidecar.volumes" .Subcharts.talos | nindent 4 }}

and `enableServiceLinks: false`, in the namespace where this chart's ConfigMap and the Secret are. As an init container
with `restartPolicy: Always` it starts before Envoy and ends after it. */}}

{{- define "talos.sidecar.socket" -}}
/run/talos/authz.sock
{{- end }}

{{- define "talos.sidecar.arguments" -}}
{{- dict "component" "sidecar" "planes" (list "authz") "socket" (include "talos.sidecar.socket" .) "resources" .Values.sidecar.resources "runAsUser" .Values.sidecar.runAsUser "preStopSeconds" 0 | toJson -}}
{{- end }}

{{- define "talos.sidecar.container" -}}
{{- $arguments := include "talos.sidecar.arguments" . | fromJson -}}
{{- $container := include "talos.container" (set $arguments "root" .) | fromYaml -}}
{{- /* Envoy asks its health itself: what it says must not take the whole pod out of service. */ -}}
{{- $container = omit $container "readinessProbe" "lifecycle" -}}
{{- toYaml (set $container "restartPolicy" "Always") -}}
{{- end }}

{{- define "talos.sidecar.volumes" -}}
{{- $arguments := include "talos.sidecar.arguments" . | fromJson -}}
{{- include "talos.volumes" (set $arguments "root" .) -}}
{{- end }}
