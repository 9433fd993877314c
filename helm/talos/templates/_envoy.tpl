{{/* Envoy's configuration with Talos as a sidecar. The project's envoy/envoy.yaml explains each setting. */}}

{{- define "talos.envoy.filter" -}}
name: envoy.filters.http.ext_authz
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
  transport_api_version: V3
  grpc_service:
    envoy_grpc: { cluster_name: talos_authz }
    timeout: 0.25s
    retry_policy:
      retry_on: unavailable,reset
      num_retries: 1
      retry_back_off: { base_interval: 0.01s, max_interval: 0.25s }
  failure_mode_allow: false
  status_on_error: { code: ServiceUnavailable }
  encode_raw_headers: true
  validate_mutations: true
  clear_route_cache: false
  {{- if .Values.sidecar.accelerator.enabled }}
  filter_enabled_metadata:
    filter: envoy.filters.http.ext_authz
    path: [{ key: decision }]
    value: { string_match: { exact: allow } }
    invert: true
  route_metadata_context_namespaces: [talos]
  {{- else }}
  filter_enabled:
    default_value: { numerator: 100, denominator: HUNDRED }
  deny_at_disable:
    default_value: true
    runtime_key: ext_authz.deny_at_disable
  {{- end }}
{{- end }}

{{/* The accelerator, before that filter. */}}
{{- define "talos.envoy.accelerator" -}}
name: talos.accelerator
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
  dynamic_module_config: { name: talos_module, do_not_close: true }
  filter_name: accelerator
  filter_config:
    "@type": type.googleapis.com/google.protobuf.StringValue
    value: {{ dict "socket" (include "talos.sidecar.socket" .) | toJson | quote }}
{{- end }}

{{/* Settings of routes, or of a virtual host, that may use it. */}}
{{- define "talos.envoy.accelerated" -}}
typed_per_filter_config:
  talos.accelerator:
    "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute
    dynamic_module_config: { name: talos_module, do_not_close: true }
    filter_config:
      "@type": type.googleapis.com/google.protobuf.StringValue
      value: '{"accelerate": true}'
{{- end }}

{{/* Removes forged identities from request trailers, which an HTTP/2 upstream would trust. */}}
{{- define "talos.envoy.trailers" -}}
name: talos.trailers
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
  mutations:
    request_trailers_mutations:
      - remove_on_match: { key_matcher: { safe_regex: { regex: "x[^a-z0-9]talos[^a-z0-9].*" } } }
      - remove: {{ dig "authz" "token_header" "authorization" (.Values.config | default dict) }}
{{- end }}

{{- define "talos.envoy.cluster" -}}
name: talos_authz
type: STATIC
connect_timeout: 0.2s
load_assignment:
  cluster_name: talos_authz
  endpoints:
    - lb_endpoints:
        - endpoint:
            address:
              pipe: { path: {{ include "talos.sidecar.socket" . }} }
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config:
      http2_protocol_options:
        connection_keepalive: { interval: 5s, timeout: 1s }
health_checks:
  - timeout: 0.5s
    interval: 1s
    no_traffic_interval: 1s
    unhealthy_threshold: 2
    healthy_threshold: 1
    grpc_health_check: { service_name: envoy.service.auth.v3.Authorization }
common_lb_config:
  healthy_panic_threshold: { value: 0 }
circuit_breakers:
  thresholds:
    - max_connections: 64
      max_pending_requests: 1024
      max_requests: 4096
      retry_budget:
        budget_percent: { value: 20 }
        min_retry_concurrency: 16
{{- end }}

{{- define "talos.envoy.config" -}}
node: { id: {{ include "talos.fullname" . }}-gateway, cluster: {{ include "talos.fullname" . }}-gateway }
admin:
  address:
    socket_address: { address: 127.0.0.1, port_value: 9901 }
overload_manager:
  resource_monitors:
    - name: envoy.resource_monitors.global_downstream_max_connections
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
        max_active_downstream_connections: 10000
static_resources:
  listeners:
    - name: edge
      address:
        socket_address: { address: {{ .Values.planes.bindAddress | quote }}, port_value: {{ .Values.gateway.port }} }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
                codec_type: AUTO
                use_remote_address: true
                normalize_path: true
                merge_slashes: true
                path_with_escaped_slashes_action: REJECT_REQUEST
                common_http_protocol_options:
                  headers_with_underscores_action: REJECT_REQUEST
                  max_stream_duration: 3600s
                request_headers_timeout: 10s
                access_log:
                  - name: envoy.access_loggers.stdout
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
                      log_format:
                        json_format:
                          time: "%START_TIME%"
                          method: "%REQUEST_HEADER(:METHOD)%"
                          path: "%PATH(NQ)%"
                          status: "%RESPONSE_CODE%"
                          why: "%RESPONSE_CODE_DETAILS%"
                          ms: "%DURATION%"
                          client: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
                          key_id: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:key_id)%"
                          actor_id: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:actor_id)%"
                http_filters:
                  {{- if .Values.sidecar.accelerator.enabled }}
                  - {{- include "talos.envoy.accelerator" . | nindent 20 }}
                  {{- end }}
                  - {{- include "talos.envoy.filter" . | nindent 20 }}
                  - {{- include "talos.envoy.trailers" . | nindent 20 }}
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  name: edge
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      {{- if .Values.sidecar.accelerator.enabled }}
                      {{- include "talos.envoy.accelerated" . | nindent 22 }}
                      {{- end }}
                      routes:
                        {{- range .Values.gateway.routes }}
                        - match: { path_separated_prefix: {{ .prefix | quote }} }
                          route: { cluster: upstream }
                          {{- with .policy }}
                          {{- if $.Values.sidecar.accelerator.enabled }}
                          metadata:
                            filter_metadata:
                              talos:
                                {{- range $key, $value := . }}
                                {{ $key }}: {{ $value | quote }}
                                {{- end }}
                          {{- else }}
                          typed_per_filter_config:
                            envoy.filters.http.ext_authz:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                              check_settings:
                                context_extensions:
                                  {{- range $key, $value := . }}
                                  {{ $key }}: {{ $value | quote }}
                                  {{- end }}
                          {{- end }}
                          {{- end }}
                        {{- end }}
                        - match: { prefix: / }
                          route: { cluster: upstream }
          {{- if .Values.gateway.tls.secretName }}
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                tls_params: { tls_minimum_protocol_version: TLSv1_2 }
                alpn_protocols: [h2, http/1.1]
                tls_certificate_sds_secret_configs:
                  - name: edge
                    sds_config:
                      path_config_source: { path: /etc/envoy/tls.yaml }
                      resource_api_version: V3
          {{- end }}
    # For the kubelet and Prometheus. The admin listener, which can stop Envoy, stays on loopback.
    - name: telemetry
      address:
        socket_address: { address: {{ .Values.planes.bindAddress | quote }}, port_value: 9902 }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: telemetry
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  request_headers_to_remove: [x-talos-key-id, x-talos-actor-id, x-talos-scopes, x-talos-network-id]
                  virtual_hosts:
                    - name: telemetry
                      domains: ["*"]
                      routes:
                        - match: { path: /ready }
                          route: { cluster: admin }
                        - match: { path: /stats/prometheus }
                          route: { cluster: admin }
  clusters:
    - name: upstream
      type: STRICT_DNS
      connect_timeout: 1s
      load_assignment:
        cluster_name: upstream
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: { address: {{ .Values.gateway.upstream.host | quote }}, port_value: {{ .Values.gateway.upstream.port }} }
    - name: admin
      type: STATIC
      connect_timeout: 1s
      load_assignment:
        cluster_name: admin
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: { address: 127.0.0.1, port_value: 9901 }
    - {{- include "talos.envoy.cluster" . | nindent 6 }}
{{- end }}
