{{/* Parts of the pod that migrates the database. It runs before the objects of the chart exist, so it uses only what was
there before the installation. */}}

{{/* ServiceAccount of the Job: one that the chart doesn't create. */}}
{{- define "talos.migrate.serviceAccountName" -}}
{{- $account := .Values.workload.serviceAccount -}}
{{- if .Values.migration.serviceAccountName -}}
{{ .Values.migration.serviceAccountName }}
{{- else if and $account.name (not $account.create) -}}
{{ $account.name }}
{{- else -}}
default
{{- end -}}
{{- end }}

{{/* Variables of extraEnv for the migration, as JSON. Takes (root, env): env takes precedence. Without a configuration
file, only settings of the database are among them: others may be invalid without those in `config`. */}}
{{- define "talos.migrate.extraEnv" -}}
{{- $root := .root -}}
{{- $env := .env -}}
{{- $variables := list -}}
{{- range $root.Values.extraEnv }}
{{- $is_setting := hasPrefix "TALOS_" .name -}}
{{- $applies := or $root.Values.secrets.config (not $is_setting) (regexMatch "^TALOS_(DB|MIGRATE)_" .name) -}}
{{- if and $applies (not (get $env .name)) }}{{ $variables = append $variables . }}{{ end -}}
{{- end -}}
{{- toJson $variables -}}
{{- end }}

{{/* Volumes of extraVolumes for the migration, as JSON. Not claims: a pod on another node may hold them. */}}
{{- define "talos.migrate.extraVolumes" -}}
{{- $volumes := list -}}
{{- range .Values.extraVolumes }}
{{- if not (hasKey . "persistentVolumeClaim") }}{{ $volumes = append $volumes . }}{{ end -}}
{{- end -}}
{{- toJson $volumes -}}
{{- end }}

{{/* Mounts of these volumes, as JSON. Other mounts of extraVolumeMounts are of volumes that only Talos's pods have. */}}
{{- define "talos.migrate.extraMounts" -}}
{{- $names := list -}}
{{- range include "talos.migrate.extraVolumes" . | fromJsonArray }}{{ $names = append $names .name }}{{ end -}}
{{- $mounts := list -}}
{{- range .Values.extraVolumeMounts }}
{{- if has .name $names }}{{ $mounts = append $mounts . }}{{ end -}}
{{- end -}}
{{- toJson $mounts -}}
{{- end }}

{{/* Container that migrates the database. Takes (root, mounts). It needs only the DSN, or the whole configuration file. */}}
{{- define "talos.migrate" -}}
{{- $root := .root -}}
name: migrate
image: {{ include "talos.image" (dict "root" $root "image" $root.Values.image) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args:
  - migrate
  - up
  {{- if $root.Values.secrets.config }}
  - --config=/etc/talos/config/talos.yaml
  {{- end }}
{{- $env := merge (deepCopy ($root.Values.migration.env | default dict)) (deepCopy ($root.Values.secrets.env | default dict)) }}
{{- $variables := include "talos.secretEnv" (dict "root" $root "env" $env) | trim }}
{{- $extra := include "talos.migrate.extraEnv" (dict "root" $root "env" $env) | fromJsonArray }}
{{- if or $variables $extra }}
env:
  {{- with $variables }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $extra }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with $root.Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml $root.Values.migration.resources | nindent 2 }}
securityContext:
  {{- include "talos.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- if $root.Values.secrets.config }}
  - name: config
    mountPath: /etc/talos/config
    readOnly: true
  {{- end }}
  {{- with include "talos.secretsMount" $root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- range $index, $mount := $root.Values.secretMounts }}
  - name: secret-{{ $index }}
    mountPath: {{ $mount.mountPath }}
    readOnly: true
  {{- end }}
  {{- with include "talos.migrate.extraMounts" $root | fromJsonArray }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .mounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
