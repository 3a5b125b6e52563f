# All processes of driftline in one image; the command says which: docker run driftline:0.1.0 stream -s /etc/driftline/settings.yaml
#   docker build -f deploy/docker/driftline.Dockerfile -t driftline:0.1.0 .
# A replica alone needs neither torch nor Feast: --build-arg EXTRAS=serving
FROM python:3.12.12-slim-bookworm AS build
ARG EXTRAS=stream,trainer,serving,abtest
WORKDIR /src
RUN python -m venv /opt/driftline
COPY constraints.txt ./
RUN /opt/driftline/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt uv
COPY pyproject.toml README.md ./
COPY abtest abtest
COPY contracts contracts
COPY driftline driftline
COPY evaluation evaluation
COPY feature_repo feature_repo
COPY serving serving
COPY stream stream
COPY trainer trainer
COPY world world
RUN /opt/driftline/bin/uv pip install --no-cache --compile-bytecode --python /opt/driftline/bin/python -c constraints.txt ".[${EXTRAS}]" \
    && /opt/driftline/bin/uv pip uninstall --python /opt/driftline/bin/python uv

FROM python:3.12.12-slim-bookworm
# Of libgomp torch, Faiss and ONNX Runtime each bring their own; tini hands SIGTERM on and reaps what dies.
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini=0.19.0-1+b3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin driftline \
    && install -d -o driftline -g driftline /var/lib/driftline
COPY --from=build /opt/driftline /opt/driftline
ENV PATH=/opt/driftline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /var/lib/driftline
ENTRYPOINT ["tini", "--", "driftline"]
CMD ["--help"]
