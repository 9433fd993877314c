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
{{- with include "talos.secretEnv" (dict "root" $root "env" $env) | trim }}
env:
  {{- . | nindent 2 }}
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
  {{- range $index, $mount := $root.Values.secretMounts }}
  - name: secret-{{ $index }}
    mountPath: {{ $mount.mountPath }}
    readOnly: true
  {{- end }}
  {{- with .mounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
