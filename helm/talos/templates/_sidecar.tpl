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
{{- if .Values.sidecar.accelerator.enabled -}}
{{- $_ := set $container "env" (append $container.env (dict "name" "TALOS_AUTHZ_EDGE_ENABLED" "value" "true")) -}}
{{- end -}}
{{- toYaml (set $container "restartPolicy" "Always") -}}
{{- end }}

{{- define "talos.sidecar.volumes" -}}
{{- $arguments := include "talos.sidecar.arguments" . | fromJson -}}
{{- include "talos.volumes" (set $arguments "root" .) -}}
{{- if .Values.sidecar.accelerator.enabled }}
- name: talos-module
  {{- if eq .Values.sidecar.accelerator.source "image" }}
  image:
    reference: {{ include "talos.accelerator.image" . }}
    pullPolicy: {{ .Values.sidecar.accelerator.image.pullPolicy }}
  {{- else }}
  emptyDir: { sizeLimit: 32Mi }
  {{- end }}
{{- end }}
{{- end }}

{{/* Image that has the accelerator's library. */}}
{{- define "talos.accelerator.image" -}}
{{- $own := .Values.sidecar.accelerator.image -}}
{{ include "talos.image" (dict "root" . "image" (ternary $own .Values.image (ne $own.repository ""))) }}
{{- end }}

{{/* Directory in which Envoy finds the library. */}}
{{- define "talos.accelerator.directory" -}}
/talos-module{{ ternary .Values.sidecar.accelerator.directory "" (eq .Values.sidecar.accelerator.source "image") }}
{{- end }}

{{/* "true" if an init container copies the library. */}}
{{- define "talos.accelerator.copies" -}}
{{- if and .Values.sidecar.accelerator.enabled (eq .Values.sidecar.accelerator.source "copy") }}true{{ end -}}
{{- end }}

{{/* That init container. */}}
{{- define "talos.accelerator.copy" -}}
name: talos-module
image: {{ include "talos.accelerator.image" . }}
imagePullPolicy: {{ .Values.sidecar.accelerator.image.pullPolicy }}
command: [cp, {{ .Values.sidecar.accelerator.directory }}/libtalos_module.so, /talos-module/]
resources:
  requests: { cpu: 10m, memory: 16Mi }
  limits: { memory: 64Mi }
securityContext:
  {{- include "talos.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: talos-module
    mountPath: /talos-module
{{- end }}
