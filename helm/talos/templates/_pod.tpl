{{/* Parts of a pod that runs Talos. Each takes (root, component, planes). */}}

{{- define "talos.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "talos.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.runAsUser }}
runAsGroup: {{ .Values.podSecurity.runAsGroup }}
fsGroup: {{ .Values.podSecurity.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Host names of the admin plane: those of its Service, and those of the values. The chart can't read the Secret's
talos.yaml (secrets.config), so its names aren't among them. */}}
{{- define "talos.adminHosts" -}}
{{- $name := printf "%s-admin" (include "talos.fullname" .) -}}
{{- $ns := .Release.Namespace -}}
{{- $own := list $name (printf "%s.%s" $name $ns) (printf "%s.%s.svc" $name $ns) (printf "%s.%s.svc.%s" $name $ns .Values.clusterDomain) -}}
{{- $more := (((.Values.config | default dict).serve | default dict).http | default dict).allowed_hosts | default list -}}
{{- join "," (uniq (concat $own $more (.Values.planes.admin.allowedHosts | default list))) -}}
{{- end }}

{{/* Environment variables from Secrets. Takes (root, env): a key of secrets.existingSecret, or another Secret's name and
key, by variable. */}}
{{- define "talos.secretEnv" -}}
{{- $root := .root -}}
{{- range $variable, $from := .env }}
{{- if and $from (not (and $root.Values.sqlite.enabled (eq $variable "TALOS_DB_DSN"))) }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef:
      {{- if kindIs "string" $from }}
      name: {{ $root.Values.secrets.existingSecret }}
      key: {{ $from }}
      {{- else }}
      name: {{ $from.secretName }}
      key: {{ $from.key }}
      {{- end }}
{{- end }}
{{- end }}
{{- $root = .root -}}
{{- if $root.Values.sqlite.enabled }}
- name: TALOS_DB_DSN
  value: sqlite:///var/lib/talos/talos.db
{{- end }}
{{- end }}

{{- define "talos.tlsEnv" -}}
{{- if .tls.secretName }}
- name: TALOS_SERVE_{{ .name }}_TLS_CERT_FILE
  value: /etc/talos/tls/{{ .plane }}/tls.crt
- name: TALOS_SERVE_{{ .name }}_TLS_KEY_FILE
  value: /etc/talos/tls/{{ .plane }}/tls.key
{{- if .tls.clientCa }}
- name: TALOS_SERVE_{{ .name }}_TLS_CLIENT_CA_FILE
  value: /etc/talos/tls/{{ .plane }}/ca.crt
{{- end }}
{{- end }}
{{- end }}

{{/* Environment variables. Also takes socket. Settings that depend on the pod are here, not in the configuration file. */}}
{{- define "talos.env" -}}
{{- $root := .root -}}
{{- $planes := $root.Values.planes -}}
{{ include "talos.secretEnv" (dict "root" $root "env" $root.Values.secrets.env) | trim }}
{{- if $root.Values.secrets.signingKeys }}
- name: TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS
  {{- if kindIs "string" $root.Values.secrets.signingKeys }}
  value: file:///etc/talos/secrets/{{ $root.Values.secrets.signingKeys }}
  {{- else }}
  value: file:///etc/talos/signing-keys/{{ $root.Values.secrets.signingKeys.key }}
  {{- end }}
{{- end }}
- name: TALOS_SERVE_METRICS_HOST
  value: {{ $planes.bindAddress | quote }}
- name: TALOS_SERVE_METRICS_PORT
  value: "4422"
{{- include "talos.tlsEnv" (dict "name" "METRICS" "plane" "metrics" "tls" $planes.metrics.tls) }}
{{- if has "admin" .planes }}
- name: TALOS_SERVE_HTTP_HOST
  value: {{ ternary $planes.bindAddress "127.0.0.1" $planes.admin.expose | quote }}
- name: TALOS_SERVE_HTTP_PORT
  value: "4420"
{{- if $planes.admin.expose }}
- name: TALOS_SERVE_HTTP_ALLOWED_HOSTS
  value: {{ include "talos.adminHosts" $root | quote }}
{{- end }}
{{- if and $planes.admin.expose (or $planes.admin.trustedNetwork (include "talos.meshGuardsAdmin" $root)) }}
- name: TALOS_SERVE_HTTP_TRUSTED_NETWORK
  value: "true"
{{- end }}
{{- include "talos.tlsEnv" (dict "name" "HTTP" "plane" "admin" "tls" $planes.admin.tls) }}
{{- end }}
{{- if has "public" .planes }}
- name: TALOS_SERVE_PUBLIC_HOST
  value: {{ $planes.bindAddress | quote }}
- name: TALOS_SERVE_PUBLIC_PORT
  value: "4421"
{{- include "talos.tlsEnv" (dict "name" "PUBLIC" "plane" "public" "tls" $planes.public.tls) }}
{{- end }}
{{- if has "authz" .planes }}
{{- if .socket }}
- name: TALOS_SERVE_AUTHZ_SOCKET
  value: {{ .socket }}
{{- else }}
- name: TALOS_SERVE_AUTHZ_HOST
  value: {{ $planes.bindAddress | quote }}
- name: TALOS_SERVE_AUTHZ_PORT
  value: "4423"
{{- include "talos.tlsEnv" (dict "name" "AUTHZ" "plane" "authz" "tls" $planes.authz.tls) }}
{{- end }}
{{- end }}
{{- if eq (include "talos.hasAudit" .) "true" }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: TALOS_AUDIT_FILE
  value: /var/log/talos/$(POD_NAME).log
{{- end }}
{{- with $root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* "true" if the pod has the volume of the audit log: not beside somebody else's Envoy. */}}
{{- define "talos.hasAudit" -}}
{{- and .root.Values.audit.enabled (ne .component "sidecar") -}}
{{- end }}

{{/* "true" if Istio restricts the admin plane to named service accounts. */}}
{{- define "talos.meshGuardsAdmin" -}}
{{- if and .Values.istio.enabled .Values.istio.admin.serviceAccounts }}true{{ end -}}
{{- end }}

{{/* Keys of the Secret that are mounted as files, as JSON. */}}
{{- define "talos.secretFiles" -}}
{{- $keys := .Values.secrets.files -}}
{{- if and .Values.secrets.signingKeys (kindIs "string" .Values.secrets.signingKeys) }}{{ $keys = append $keys .Values.secrets.signingKeys }}{{ end -}}
{{- toJson (uniq $keys) -}}
{{- end }}

{{/* Mount of these files, of pods and of the migration. Nothing if there are none. */}}
{{- define "talos.secretsMount" -}}
{{- if include "talos.secretFiles" . | fromJsonArray }}
- name: secrets
  mountPath: /etc/talos/secrets
  readOnly: true
{{- end }}
{{- end }}

{{/* Volume of these files. */}}
{{- define "talos.secretsVolume" -}}
{{- with include "talos.secretFiles" . | fromJsonArray }}
- name: secrets
  secret:
    secretName: {{ $.Values.secrets.existingSecret }}
    defaultMode: 0440
    items:
      {{- range . }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}
{{- end }}

{{- define "talos.mounts" -}}
{{- $root := .root -}}
- name: tmp
  mountPath: /tmp
- name: config
  mountPath: /etc/talos/config
  readOnly: true
{{- include "talos.secretsMount" $root }}
{{- if kindIs "map" $root.Values.secrets.signingKeys }}
- name: signing-keys
  mountPath: /etc/talos/signing-keys
  readOnly: true
{{- end }}
{{- range $index, $mount := $root.Values.secretMounts }}
- name: secret-{{ $index }}
  mountPath: {{ $mount.mountPath }}
  readOnly: true
{{- end }}
{{- if eq (include "talos.hasAudit" .) "true" }}
- name: audit
  mountPath: /var/log/talos
{{- end }}
{{- with $root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- range append .planes "metrics" }}
{{- if and (index $root.Values.planes .).tls.secretName (not (and (eq . "authz") $.socket)) }}
- name: tls-{{ . }}
  mountPath: /etc/talos/tls/{{ . }}
  readOnly: true
{{- end }}
{{- end }}
{{- if and $root.Values.sqlite.enabled (eq .component "all") }}
- name: sqlite
  mountPath: /var/lib/talos
{{- end }}
{{- if .socket }}
- name: talos-socket
  mountPath: {{ dir .socket }}
{{- end }}
{{- end }}

{{- define "talos.volumes" -}}
{{- $root := .root -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ $root.Values.tmp.sizeLimit }}
- name: config
{{- if $root.Values.secrets.config }}
  secret:
    secretName: {{ $root.Values.secrets.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ $root.Values.secrets.config }}
        path: talos.yaml
{{- else }}
  configMap:
    name: {{ include "talos.fullname" $root }}
{{- end }}
{{- include "talos.secretsVolume" $root }}
{{- if kindIs "map" $root.Values.secrets.signingKeys }}
- name: signing-keys
  secret:
    secretName: {{ $root.Values.secrets.signingKeys.secretName }}
    defaultMode: 0440
    items:
      - key: {{ $root.Values.secrets.signingKeys.key }}
        path: {{ $root.Values.secrets.signingKeys.key }}
{{- end }}
{{- range $index, $mount := $root.Values.secretMounts }}
- name: secret-{{ $index }}
  secret:
    secretName: {{ $mount.secretName }}
    defaultMode: 0440
{{- end }}
{{- if eq (include "talos.hasAudit" .) "true" }}
- name: audit
  {{- if $root.Values.audit.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ $root.Values.audit.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ $root.Values.audit.sizeLimit }}
  {{- end }}
{{- end }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- range append .planes "metrics" }}
{{- $tls := (index $root.Values.planes .).tls }}
{{- if and $tls.secretName (not (and (eq . "authz") $.socket)) }}
- name: tls-{{ . }}
  secret:
    secretName: {{ $tls.secretName }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- if and $root.Values.sqlite.enabled (eq .component "all") }}
- name: sqlite
  {{- if $root.Values.sqlite.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ $root.Values.sqlite.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ $root.Values.sqlite.sizeLimit }}
  {{- end }}
{{- end }}
{{- if .socket }}
- name: talos-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- end }}

{{/* Probes of (root, planes, socket).

Readiness of the authz plane is its gRPC health, not that of the database: an outage of the database must not take all
instances out of service, as they have keys in their caches. The kubelet can't use gRPC over TLS or a Unix socket: there
the startup probe waits for the database, and Envoy's own health check does the rest. */}}
{{- define "talos.probes" -}}
{{- $metrics := dict "port" "metrics" "scheme" (ternary "HTTPS" "HTTP" (ne .root.Values.planes.metrics.tls.secretName "")) -}}
{{- $grpc := and (has "authz" .planes) (not .socket) (not .root.Values.planes.authz.tls.secretName) -}}
startupProbe:
  httpGet: {{ toJson (merge (dict "path" (ternary "/health/alive" "/health/ready" $grpc)) $metrics) }}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {{ toJson (merge (dict "path" "/health/alive") $metrics) }}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
readinessProbe:
{{- if $grpc }}
  grpc:
    port: 4423
    service: envoy.service.auth.v3.Authorization
{{- else if has "authz" .planes }}
  httpGet: {{ toJson (merge (dict "path" "/health/alive") $metrics) }}
{{- else }}
  httpGet: {{ toJson (merge (dict "path" "/health/ready") $metrics) }}
{{- end }}
  periodSeconds: 2
  timeoutSeconds: 1
  failureThreshold: 2
{{- end }}

{{/* The Talos container. Also takes socket, resources, runAsUser and preStopSeconds. */}}
{{- define "talos.container" -}}
{{- $root := .root -}}
{{- $ports := include "talos.ports" $root | fromJson -}}
name: talos
image: {{ include "talos.image" (dict "root" $root "image" $root.Values.image) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args:
  - serve
  {{- if eq (len .planes) 1 }}
  - {{ first .planes }}
  {{- end }}
  - --config=/etc/talos/config/talos.yaml
env:
  {{- include "talos.env" . | nindent 2 }}
{{- with $root.Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- range append .planes "metrics" }}
  {{- if and (not (and (eq . "authz") $.socket)) (or (ne . "admin") $root.Values.planes.admin.expose) }}
  - name: {{ . }}
    containerPort: {{ index $ports . }}
    protocol: TCP
  {{- end }}
  {{- end }}
{{ include "talos.probes" . }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .preStopSeconds }}
resources:
  {{- toYaml .resources | nindent 2 }}
securityContext:
  {{- include "talos.containerSecurity" $root | nindent 2 }}
  {{- with .runAsUser }}
  runAsUser: {{ . }}
  {{- end }}
volumeMounts:
  {{- include "talos.mounts" . | nindent 2 }}
{{- end }}

{{/* Scheduling of a Deployment's pods. Takes (root, component, workload). */}}
{{- define "talos.scheduling" -}}
{{- with .workload.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .workload.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .workload.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .workload.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .workload.topologySpreadConstraints }}
  {{- toYaml .workload.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "talos.selector" (dict "root" $.root "component" $.component) | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}
