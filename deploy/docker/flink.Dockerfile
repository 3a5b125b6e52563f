# The stream on Apache Flink: Flink with PyFlink, Kafka's connector, the plugin for s3://, and driftline's steps.
# Connector, plugin and the class of stream/flink/Records.java are taken from where `driftline flink install` has put
# them, so that an image has the very files that were tried:
#   docker build -f deploy/docker/flink.Dockerfile --build-context installed=$HOME/.driftline/flink/2.3.0 -t driftline-flink:0.1.0 .
FROM flink:2.3.0-java17
COPY --from=astral/uv:0.9.13 /uv /usr/local/bin/uv
ENV UV_PYTHON_INSTALL_DIR=/opt/pythons
COPY stream/flink/requirements.txt /opt/driftline/requirements.txt
RUN uv venv --python 3.12 /opt/python \
    && uv pip install --no-cache --compile-bytecode --python /opt/python/bin/python -r /opt/driftline/requirements.txt
# hadolint ignore=DL3022
COPY --from=installed jars/ driftline-records-*.jar /opt/flink/lib/
# hadolint ignore=DL3022
COPY --from=installed plugins/ /opt/flink/plugins/
COPY contracts /opt/driftline/contracts
COPY stream /opt/driftline/stream
ENV PYTHONPATH=/opt/driftline \
    PATH=/opt/python/bin:$PATH
USER 9999:9999
