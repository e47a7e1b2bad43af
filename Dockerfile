# Needs nothing but this directory: docker build -t steadfast .

FROM rust:1.95-bookworm AS builder
# zlib-ng, which Pingora compresses with, is built by CMake.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /build/target/release/steadfast /usr/local/bin/steadfast
COPY conf/steadfast.yaml /etc/steadfast/steadfast.yaml
# An id without a name: no file is its own, and it may still bind every port above 1023.
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# By the binary itself: it writes no file, and needs neither shell nor curl. So it runs with --read-only.
HEALTHCHECK --interval=10s --timeout=5s CMD ["/usr/local/bin/steadfast", "health", "-c", "/etc/steadfast/steadfast.yaml"]
# To replace the binary of a running container, connections included: CMD ["run", "--supervise", "-c", ...], then copy
# the new one over it and send the container SIGUSR2. Process 1 stays the same, and costs about a megabyte.
ENTRYPOINT ["/usr/local/bin/steadfast"]
CMD ["run", "-c", "/etc/steadfast/steadfast.yaml"]
