# The gateway as a container: one program, the three libraries it is linked with, the certificates of the
# public authorities, and conf/. No shell, no package manager, nothing that is setuid; the root may be
# read-only. `docker build -t datahub-gateway .`
#
#   --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD)   what the labels say
#   --target symbols                                                       the program with its line tables

FROM rust:1.95.0-slim-bookworm AS compile
# The newest of a release that gets nothing but security fixes: no versions are pinned.
# hadolint ignore=DL3008
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
# Both caches outlive this build where the engine keeps them; an empty one only takes longer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin gateway \
    && install -D target/release/gateway /out/gateway

# What `perf` and a debugger want beside a program that ships without.
FROM scratch AS symbols
COPY --from=compile /out/gateway /gateway

# Puts the root of the image together, in a folder.
FROM debian:bookworm-slim AS root
SHELL ["/bin/bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail", "-c"]
# The libraries are those of the distribution, at their newest; so is what strips the program.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates libc6 libgcc-s1 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /image
# Users, time and names without a network: what the C library reads. /tmp is for whoever mounts one.
RUN install -d etc/ssl/certs usr/share/doc var/lib/dpkg \
    && install -d -m 1777 tmp \
    && echo 'root:x:0:0:root:/:/sbin/nologin' >etc/passwd \
    && echo 'gateway:x:65532:65532:gateway:/app:/sbin/nologin' >>etc/passwd \
    && printf 'root:x:0:\ngateway:x:65532:\n' >etc/group \
    && echo 'hosts: files dns' >etc/nsswitch.conf \
    && cp /etc/os-release /etc/debian_version etc/ \
    && cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/
COPY --from=compile /out/gateway usr/local/bin/gateway
# The libraries go where the program's loader looks for them. What they are is written down where scanners
# of images look for packages, and their licences lie beside it.
RUN strip usr/local/bin/gateway \
    && ldd usr/local/bin/gateway | grep --only-matching '/[^ ]*' | while read -r library; do \
        install -D "$library" ".$library"; \
    done \
    && for package in base-files ca-certificates libc6 libgcc-s1; do \
        dpkg-query --status "$package" >>var/lib/dpkg/status; \
        echo >>var/lib/dpkg/status; \
        install -D -m 644 "/usr/share/doc/$package/copyright" "usr/share/doc/$package/copyright"; \
    done
# The store and the generated secrets lie in data/, unless there is a DATABASE_URL: mount a volume, and
# keep them together.
RUN install -d app && install -d -m 700 -o 65532 -g 65532 app/data

FROM scratch
COPY --from=root /image/ /
WORKDIR /app
COPY LICENSE /usr/share/doc/datahub-gateway/LICENSE
COPY conf conf
# So that `docker exec gateway gateway keys list` finds it.
ENV PATH=/usr/local/bin
ENV DATAHUB_CONF=/app/conf
USER 65532:65532
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/gateway", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/gateway"]
CMD ["run"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="DataHub Gateway" \
      org.opencontainers.image.description="A programmable reverse proxy and API gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
