# Container image of Talos: the binary, the C library and CA certificates; no shell, not root.
#
#   docker build -t talos .

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin talos && cargo build --release --locked -p talos-module && \
    cp target/release/talos target/release/libtalos_module.so / && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /talos /usr/local/bin/talos
# The accelerator, which an Envoy mounts from here.
COPY --from=build /libtalos_module.so /usr/local/lib/talos/libtalos_module.so
# Directory of the embedded database, if no volume is mounted there.
COPY --from=build --chown=65532:65532 /data /var/lib/talos
WORKDIR /var/lib/talos
# The number of the user nonroot: Kubernetes' runAsNonRoot needs a numeric user.
USER 65532:65532
EXPOSE 4420 4421 4422 4423
# Told at the start when a listener can't be reached from outside.
ENV container=oci
# The image has no shell and no curl. In Kubernetes, use the probes of the chart.
HEALTHCHECK --interval=10s --timeout=3s CMD ["/usr/local/bin/talos", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/talos"]
CMD ["serve"]
