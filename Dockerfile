# docker build --tag pointsman .        See docs/operating.md, "Container".
FROM python:3.11-slim AS build
WORKDIR /source
RUN python -m venv /opt/pointsman
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY policy policy
COPY server server
COPY proto/pointsman proto/pointsman
RUN /opt/pointsman/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt \
        ".[gateway,postgres,tracing]"

FROM python:3.11-slim
RUN groupadd --gid 10001 pointsman \
    && useradd --uid 10001 --gid pointsman --no-create-home --shell /usr/sbin/nologin pointsman \
    && install --directory --owner pointsman --group pointsman /data
COPY --from=build /opt/pointsman /opt/pointsman
# Every address of the container: the server then asks for keys and TLS, or to be told that it needs none.
ENV PATH=/opt/pointsman/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    POINTSMAN_HOST=0.0.0.0 \
    POINTSMAN_HTTP_HOST=0.0.0.0 \
    POINTSMAN_METRICS_HOST=0.0.0.0 \
    POINTSMAN_METRICS_PORT=9464 \
    POINTSMAN_DATABASE_URL=sqlite:////data/pointsman.db \
    POINTSMAN_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 50051 50080 9464
# It asks POINTSMAN_TARGET, by POINTSMAN_CA under TLS.
HEALTHCHECK --interval=15s --timeout=10s --start-period=2m --retries=3 CMD ["pointsman", "health"]
ENTRYPOINT ["pointsman"]
CMD ["serve"]
