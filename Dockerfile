# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /build
# Link-time optimisation alone takes DataFusion half an hour: `--build-arg LTO=thin` has it.
ARG LTO=off
ENV CARGO_PROFILE_RELEASE_LTO=$LTO

# The dependencies first, against an empty program: this layer is built again only when Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN mkdir -p src tests/it tests/embedded benches/end_to_end \
    && echo 'fn main() {}' | tee src/main.rs tests/it/main.rs tests/embedded/main.rs tests/tidy.rs benches/decode.rs benches/end_to_end/main.rs >/dev/null \
    && touch src/lib.rs \
    && cargo build --release --locked --no-default-features --features embedded-engine --bin streamview \
    && rm -rf src tests benches target/release/streamview target/release/deps/*streamview-* \
       target/release/.fingerprint/streamview-*

COPY . .
# Without the feature `playground`: no test servers, no sample orders in what runs in production. With the embedded engine.
RUN cargo build --release --locked --no-default-features --features embedded-engine --bin streamview

# The same with sample orders: `streamview seed`.
FROM build AS build-demo
RUN cargo build --release --locked --features embedded-engine --bin streamview

FROM debian:bookworm-slim AS runtime
# zlib for compressed records, OpenSSL for brokers behind TLS, certificates for these and for registries.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/*
USER 65532:65532
STOPSIGNAL SIGTERM
EXPOSE 8080
ENTRYPOINT ["streamview"]
CMD ["serve"]

FROM runtime AS demo
COPY --from=build-demo /build/target/release/streamview /usr/local/bin/streamview

FROM runtime
COPY --from=build /build/target/release/streamview /usr/local/bin/streamview
