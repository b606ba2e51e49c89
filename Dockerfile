# The Losswire server:
#
#   docker build --tag losswire-server .
#
# pip's own index has the builds of torch for CUDA, which also run on a CPU. PyTorch's index has
# builds for the CPU alone, which are much smaller:
#
#   docker build --tag losswire-server --build-arg TORCH_INDEX_URL=... .
#
# torch can also come from a folder of wheels, which then takes precedence over any index:
#
#   docker build --build-context wheels=/path/to/wheels .

# The tag moves with the security updates of Debian 12, and a build should have them. For builds
# that must repeat, pass a digest: --build-arg BASE_IMAGE=docker.io/library/debian@sha256:...
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

# Empty, unless --build-context puts a folder in its place.
FROM scratch AS wheels

FROM ${BASE_IMAGE} AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*

FROM python AS builder
RUN apt-get update && apt-get install --yes --no-install-recommends binutils g++ python3-venv

# pip stays in an environment of its own, so that the one that ships has none.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /build/tools && python3 -m venv --without-pip /opt/losswire
WORKDIR /build
COPY constraints.txt .

# Where torch comes from; pip's own index when empty. Only torch itself comes from this index: it
# need not hold the versions of everything else that constraints.txt names.
ARG TORCH_INDEX_URL=
# The secret `ca` is the certificates to trust where the network replaces those of the registries.
RUN --mount=type=bind,from=wheels,target=/wheels --mount=type=secret,id=ca,target=/run/ca.crt \
    if [ -s /run/ca.crt ]; then export PIP_CERT=/run/ca.crt; fi; \
    torch="$(grep '^torch==' constraints.txt)" || exit 1; \
    if ls /wheels/torch-*.whl >/dev/null 2>&1; then source='--no-index --find-links /wheels'; \
    else source="${TORCH_INDEX_URL:+--index-url $TORCH_INDEX_URL}"; fi; \
    tools/bin/pip download --no-deps --dest torch $source "$torch" \
    && tools/bin/pip --python /opt/losswire/bin/python install --no-compile \
        --constraint constraints.txt torch/*.whl \
    && rm -r torch

COPY proto proto
COPY client client
COPY server server
RUN --mount=type=secret,id=ca,target=/run/ca.crt \
    if [ -s /run/ca.crt ]; then export PIP_CERT=/run/ca.crt; fi; \
    tools/bin/pip install --constraint constraints.txt hatchling \
    && LOSSWIRE_REQUIRE_NATIVE=1 tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist ./proto ./client ./server \
    && tools/bin/pip --python /opt/losswire/bin/python install --no-compile \
        --constraint constraints.txt dist/*.whl

# Away goes what only C++ developers and debuggers use: headers, torch's own C++ tests (not all builds
# have them) and the names of local symbols. Compiled here because nothing can be written later,
# which halves the start; without a check of the sources' times, because the copy of a layer may
# have others. Tests are left out: some are written for a newer Python.
RUN packages="$(echo /opt/losswire/lib/python3*/site-packages)" \
    && rm -rf "$packages/torch/include" "$packages/torch/test" \
    && find "$packages/torch/bin" -type f ! -name torch_shm_manager -delete \
    && strip --strip-unneeded \
        "$packages/torch/lib/libtorch_cpu.so" "$packages/torch/lib/libtorch_python.so" \
    && python3 -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(tests|testing/_internal)/' /opt/losswire \
    && /opt/losswire/bin/losswire-server --version

FROM python
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="losswire-server" \
    org.opencontainers.image.description="Loss functions and their exact gradients over gRPC and HTTP" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin losswire
# Where runs are kept, unless --store names another place.
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/losswire
COPY --from=builder /opt/losswire /opt/losswire
# LOSSWIRE_TARGET is where `losswire ping` finds the server, from inside this container.
ENV PATH=/opt/losswire/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_STATE_HOME=/var/lib \
    LOSSWIRE_TARGET=127.0.0.1:50051
# By number: Kubernetes's runAsNonRoot cannot judge a name.
USER 10001:10001
VOLUME /var/lib/losswire
# gRPC, and what --http and --metrics use in docker-compose.yml.
EXPOSE 50051 8080 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 CMD ["losswire", "ping"]
ENTRYPOINT ["losswire-server"]
CMD ["serve", "--listen", "0.0.0.0:50051", "--allow-insecure"]
