# The image of Talos: the binary, the C library and the certificates that the system trusts; no shell, not root.
#
#   docker build -t talos .

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin talos && cp target/release/talos /talos && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /talos /usr/local/bin/talos
# For the embedded database, when nothing else is mounted there.
COPY --from=build --chown=65532:65532 /data /var/lib/talos
WORKDIR /var/lib/talos
# nonroot's number: Kubernetes can tell only from a number that it isn't root.
USER 65532:65532
EXPOSE 4420 4421 4422 4423
# Whether it is well, ask /health/ready on the metrics listener or gRPC health: there is no shell to do it in here.
HEALTHCHECK NONE
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/talos"]
CMD ["serve"]
