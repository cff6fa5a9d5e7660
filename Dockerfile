# syntax=docker/dockerfile:1

FROM rust:1-bookworm AS builder
WORKDIR /build
COPY . .
# .sqlx stands in for the database, Cargo.lock pins every crate.
ENV SQLX_OFFLINE=true
# The caches stay with the builder; the binary is copied out of them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin claviger \
    && cp target/release/claviger /claviger

FROM debian:bookworm-slim
# For `sslmode=verify-full` with `sslrootcert` pointing at the system's certificates.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=builder /claviger /usr/local/bin/claviger
# A number, so that orchestrators can see that it is not root. Nothing is written: all state is in Postgres.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["claviger"]
CMD ["serve"]
