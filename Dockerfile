# One image for engine, sidecar and manager. On Debian, or an image made of it, with Python 3.11 or newer:
#
#   docker build -t vecstow .
#   docker build -t vecstow --build-arg BASE_IMAGE=python:3.13-slim-bookworm .
#
# Where packages come from behind a proxy or a mirror, two optional secrets say so:
#
#   --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt --secret id=pip,src=/etc/pip.conf
#
# Two builds of one commit on one base have the same files: what is made here has the time SOURCE_DATE_EPOCH.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
RUN --mount=type=secret,id=ca,target=/run/secrets/ca,required=false \
    set -eu; \
    packages="g++"; \
    # Debian's own Python has its headers and venv in packages of their own.
    case "$(command -v python3)" in /usr/bin/*) packages="$packages python3-dev python3-venv" ;; esac; \
    options=""; \
    if [ -f /run/secrets/ca ]; then options="-o Acquire::https::CAInfo=/run/secrets/ca"; fi; \
    apt-get $options update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get $options install -y -qq --no-install-recommends $packages

# PIP_CONFIG_FILE may be missing. Python's own files are compiled in the end, all in one way.
ENV PIP_CONFIG_FILE=/run/secrets/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0

# hnswlib is published as source alone. It is compiled for every processor of this architecture, never for the one
# that it is built on; without OpenMP's library, which it asks for and does not use; and without a trace of the folder.
WORKDIR /build
COPY requirements-build.lock requirements-image.lock ./
RUN --mount=type=secret,id=ca,target=/run/secrets/ca,required=false \
    --mount=type=secret,id=pip,target=/run/secrets/pip,required=false \
    set -eu; \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv /tools; \
    pip="/tools/bin/python -m pip --quiet"; \
    $pip install --require-hashes --only-binary :all: -r requirements-build.lock; \
    awk '/^[^ ]/ {chosen = /^hnswlib==/} chosen' requirements-image.lock >hnswlib.lock; \
    HNSWLIB_NO_NATIVE=1 CFLAGS="-g0" LDFLAGS="-Wl,--as-needed -Wl,--build-id=none -s" \
        $pip wheel --require-hashes --no-build-isolation --no-deps --wheel-dir wheels -r hnswlib.lock; \
    /tools/bin/python -m zipfile -e wheels/hnswlib-*.whl look; \
    if objdump -d look/hnswlib*.so | grep -q '%[yz]mm'; then echo "hnswlib has instructions of AVX" >&2; exit 1; fi; \
    if objdump -p look/hnswlib*.so | grep 'NEEDED.*libgomp'; then exit 1; fi

# The environment has no pip of its own: the one of /tools fills it.
RUN --mount=type=secret,id=ca,target=/run/secrets/ca,required=false \
    --mount=type=secret,id=pip,target=/run/secrets/pip,required=false \
    set -eu; \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv --without-pip /opt/vecstow; \
    pip="/tools/bin/python -m pip --quiet --python /opt/vecstow/bin/python"; \
    awk '/^[^ ]/ {chosen = !/^hnswlib==/} chosen' requirements-image.lock >others.lock; \
    $pip install --no-compile --require-hashes --no-deps --only-binary :all: -r others.lock; \
    $pip install --no-compile --no-deps --no-index wheels/hnswlib-*.whl; \
    # Where it was built says nothing to whoever runs it, nobody runs the tests of dependencies here, and
    # Kubernetes' second client, of 60 MB, is for asyncio.
    find /opt/vecstow -name direct_url.json -delete; \
    find /opt/vecstow -name RECORD -exec sed -i '/direct_url.json/d' {} +; \
    find /opt/vecstow/lib -type d -name tests -prune -exec rm -rf {} +; \
    rm -rf /opt/vecstow/lib/python3*/site-packages/kubernetes/aio

# What changes with a dependency, and ...
ARG SOURCE_DATE_EPOCH=0
RUN set -eu; \
    /opt/vecstow/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/vecstow/lib; \
    mkdir -p /dependencies/opt; \
    cp -a /opt/vecstow /dependencies/opt/; \
    # A base without compiled files of Python's own library gets them: the root may be read-only.
    library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'); \
    if ! find "$library/__pycache__" -name 'argparse.*' 2>/dev/null | grep -q .; then \
        others='/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|distutils|site-packages|dist-packages)/'; \
        python3 -m compileall -q --invalidation-mode unchecked-hash -x "$others" "$library"; \
        mkdir -p "/dependencies$library"; \
        cd "$library"; \
        find . -path '*/__pycache__/*.pyc' ! -path '*-packages/*' \
            -exec cp --parents -t "/dependencies$library" {} +; \
    fi; \
    find /dependencies -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# ... what changes with the code, in a layer of its own.
COPY pyproject.toml README.md LICENSE ./
COPY engine engine
COPY operator operator
RUN set -eu; \
    pip="/tools/bin/python -m pip --quiet --python /opt/vecstow/bin/python"; \
    /tools/bin/python -m pip --quiet wheel --no-build-isolation --no-deps --no-index --wheel-dir wheels .; \
    $pip install --no-compile --no-deps --no-index wheels/vecstow-*.whl; \
    $pip check; \
    find /opt/vecstow -path '*/vecstow-*/direct_url.json' -delete; \
    find /opt/vecstow -path '*/vecstow-*/RECORD' -exec sed -i '/direct_url.json/d' {} +; \
    packages=$(/opt/vecstow/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
    /opt/vecstow/bin/python -m compileall -q -f --invalidation-mode unchecked-hash "$packages"/vecstow_*; \
    mkdir -p /project/data; \
    cd /; \
    cp -a --parents -t /project "${packages#/}"/vecstow_* "${packages#/}"/vecstow-* opt/vecstow/bin/*vecstow*; \
    find /project -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM ${BASE_IMAGE}
COPY --from=build /dependencies/ /
COPY --from=build /project/opt/ /opt/
# A volume that is made here belongs to the user below; in a pod fsGroup sees to that.
COPY --from=build --chown=65532:65532 /project/data /data
ARG BASE_IMAGE
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Vecstow" \
      org.opencontainers.image.description="A vector store for Kubernetes: engine, sidecar and manager" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
ENV PATH=/opt/vecstow/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /data
EXPOSE 3030
# Three programs share the image: `vecstow`, `vecstow-operator sidecar` and `vecstow-operator manager`.
ENTRYPOINT []
# Blocked, a SIGTERM that comes while Python itself starts waits for the program: the kernel drops it otherwise.
CMD ["env", "--block-signal=TERM,INT", "vecstow", "serve", "--data", "/data", "--host", "0.0.0.0"]
