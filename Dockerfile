# syntax=docker/dockerfile:1
# Needs nothing but this directory: docker build -t steadfast .

FROM rust:1.95-bookworm AS builder
# zlib-ng, which Pingora compresses with, is built by CMake.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# In the image nobody looks for line numbers, which would be most of it.
ENV CARGO_PROFILE_RELEASE_DEBUG=0
COPY . .
# What was downloaded and built before stays for the next build, and out of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin steadfast \
    && cp target/release/steadfast /steadfast

# The C library, authorities for TLS to servers, and a user without a name; no shell, no packages.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /steadfast /usr/local/bin/steadfast
COPY conf/steadfast.yaml /etc/steadfast/steadfast.yaml
# A number, by which Kubernetes can tell that it is not root. It may still bind every port above 1023.
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# By the binary itself: it writes no file, and needs neither shell nor curl. So it runs with --read-only.
HEALTHCHECK --interval=10s --timeout=5s CMD ["/usr/local/bin/steadfast", "health", "-c", "/etc/steadfast/steadfast.yaml"]
ENTRYPOINT ["/usr/local/bin/steadfast"]
# Process 1 stays the same, and costs about a megabyte, while the proxy below it can be replaced with all of its
# connections: copy a new binary over this one, and send the container SIGUSR2.
CMD ["run", "--supervise", "-c", "/etc/steadfast/steadfast.yaml"]
