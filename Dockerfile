# One Debian release in both stages: a binary asks for the C library that it was built against.
FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
# The context has no repository: --build-arg COMMIT="$(git log -1 --abbrev=10 --format='%h %cs')"
ARG COMMIT=""
RUN TRIPWIRE_COMMIT="$COMMIT" cargo build --profile dist --no-default-features --locked

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=nobody --group=nogroup --mode=0700 /data
COPY --from=build /src/target/dist/tripwire-sync /usr/local/bin/tripwire-sync
ENV DATABASE_URL=sqlite:///data/inbox.db \
    METRICS_ADDR=0.0.0.0:9464
VOLUME /data
EXPOSE 8080 9464
# No USER: Fly mounts a volume that belongs to root, and its machine is a VM with nothing else in it.
# Elsewhere `docker run --user nobody` works: a named volume takes over the owner of /data.
# The image has no curl, but Debian's bash speaks TCP. `docker ps` shows the result, and Docker does no more with it; Fly has
# checks of its own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD exec bash -c 'address=${BIND_ADDR:-:8080} \
    && exec 3<>"/dev/tcp/127.0.0.1/${PORT:-${address##*:}}" \
    && printf "GET /healthz HTTP/1.0\r\n\r\n" >&3 && read -r _ status _ <&3 && [ "$status" = 200 ]'
ENTRYPOINT ["/usr/local/bin/tripwire-sync"]
CMD ["serve"]
