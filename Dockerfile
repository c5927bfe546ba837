# The gateway as a container: the binary, conf/, the certificates of the public authorities, and a
# user that may write to one folder. `docker build -t datahub-gateway .`

FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
# The compiler of the image, in the version that rust-toolchain.toml names. That file stays outside, so
# that rustup does not fetch the linters listed there; raise both together.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY src src
# Named in Cargo.toml, which cargo reads whole; not built.
COPY benches benches
RUN cargo build --release --locked --bin gateway

FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/gateway /usr/local/bin/gateway
WORKDIR /app
COPY conf conf
# The store and the generated secrets lie here: mount a volume, and keep them together.
RUN install -d -m 700 -o 65532 -g 65532 data
ENV DATAHUB_CONF=/app/conf
USER 65532:65532
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/gateway", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/gateway"]
CMD ["run"]
