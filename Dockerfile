# syntax=docker/dockerfile:1.12
# One image for every service. docker build --build-arg VARIANT=cpu|cuda -t autopeft .

ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG VARIANT=cpu
# Further packages, such as ray[default], which Ray's dashboard and Kubernetes need.
ARG MORE_PACKAGES=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv --without-pip /opt/venv
# torch first and alone: it is most of the image, and changes least. Without CUDA it comes from its own index.
RUN torch=$(grep -m1 '^torch==' constraints.txt) \
    && case "${VARIANT}" in \
        cpu) export PIP_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_EXTRA_INDEX_URL=https://pypi.org/simple ;; \
        cuda) ;; \
        *) echo "VARIANT must be cpu or cuda, but is ${VARIANT}" >&2; exit 2 ;; \
       esac \
    && pip --python /opt/venv install --constraint constraints.txt "${torch}"
COPY pyproject.toml README.md LICENSE ./
COPY autopeft ./autopeft
COPY search_spaces ./search_spaces
COPY dashboard ./dashboard
COPY workers ./workers
RUN pip wheel --constraint constraints.txt --no-deps --wheel-dir /tmp/wheel . \
    && wheel=$(ls /tmp/wheel/autopeft-*.whl) \
    && pip --python /opt/venv install --constraint constraints.txt \
        "${wheel}[embedded,ray,serve,dashboard,postgres]" ${MORE_PACKAGES} \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="autopeft" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/autopeft/autopeft"
# Volumes take over owner and mode of the folders that they are mounted on: any user may write to a fresh one.
RUN groupadd --gid 10001 autopeft \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin autopeft \
    && install --directory --mode 1777 /var/lib/autopeft /var/lib/autopeft-artifacts /var/lib/models \
    && chmod 1777 /home/autopeft
COPY --from=build /opt/venv /opt/venv
# Names for a user of another number, who has no entry in /etc/passwd.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/autopeft \
    USER=autopeft \
    LOGNAME=autopeft \
    AUTOPEFT_HOME=/var/lib/autopeft \
    HF_HOME=/var/lib/models \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/autopeft
CMD ["autopeft", "--help"]
