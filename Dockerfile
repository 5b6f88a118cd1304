# syntax=docker/dockerfile:1
# Images from one file:
#   docker build --target server -t stoker-server .
#   docker build --target worker-cpu -t stoker-worker .
#   docker build --target worker-gpu -t stoker-worker-gpu .
#   docker build --target worker-horovod -t stoker-worker-horovod .
#   docker build --target worker-tpu -t stoker-worker-tpu .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy \
    STOKER_STATE_DIR=/var/lib/stoker HOME=/var/lib/stoker PATH=/opt/stoker/bin:$PATH
RUN useradd --system --uid 10001 --home-dir /var/lib/stoker --create-home stoker \
 && python -m venv /opt/stoker && /opt/stoker/bin/pip install --no-cache-dir uv
WORKDIR /srv/stoker
COPY pyproject.toml setup.py constraints.txt README.md LICENSE alembic.ini ./
COPY examples ./examples
COPY migrations ./migrations
COPY server ./server
COPY stoker ./stoker
COPY worker ./worker

FROM base AS server
RUN uv pip install --python /opt/stoker/bin/python -c constraints.txt '.[server]'
USER stoker
VOLUME /var/lib/stoker
EXPOSE 8080
ENV STOKER_HOST=0.0.0.0 STOKER_PORT=8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request,os; urllib.request.urlopen('http://127.0.0.1:'+os.environ['STOKER_PORT']+'/readyz', timeout=2)"]
ENTRYPOINT ["python", "-m", "server"]
# TLS ends at a proxy in front of the container; the server refuses a wildcard bind without being told so.
CMD ["--behind-proxy"]

# The CPU wheel of torch comes from an index of your choice: the default one brings CUDA along.
FROM base AS worker-cpu
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then uv pip install --python /opt/stoker/bin/python --index "$TORCH_INDEX" 'torch==2.13.*'; fi \
 && uv pip install --python /opt/stoker/bin/python -c constraints.txt '.[worker]'
USER stoker
VOLUME /var/lib/stoker
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "worker", "--check"]
ENTRYPOINT ["python", "-m", "worker"]

FROM base AS worker-gpu
RUN uv pip install --python /opt/stoker/bin/python -c constraints.txt '.[worker]'
USER stoker
VOLUME /var/lib/stoker
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "worker", "--check"]
ENTRYPOINT ["python", "-m", "worker"]

# Horovod is compiled against the torch that it will run with; the compiler stays behind.
FROM base AS horovod
ARG TORCH_INDEX=""
RUN apt-get update && apt-get install -y --no-install-recommends g++ make && rm -rf /var/lib/apt/lists/*
RUN if [ -n "$TORCH_INDEX" ]; then uv pip install --python /opt/stoker/bin/python --index "$TORCH_INDEX" 'torch==2.13.*'; fi \
 && uv pip install --python /opt/stoker/bin/python -c constraints.txt '.[worker]' 'setuptools<81' wheel 'cmake<4' cloudpickle pyyaml
COPY images/horovod ./images/horovod
RUN images/horovod/build.sh /opt/stoker/bin/python

FROM base AS worker-horovod
COPY --from=horovod /opt/stoker /opt/stoker
USER stoker
VOLUME /var/lib/stoker
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "worker", "--check"]
ENTRYPOINT ["python", "-m", "worker"]

# torch_xla fixes the version of torch. Run it with the TPU's devices: `docker run --privileged --net=host`.
FROM base AS worker-tpu
ARG TORCH_INDEX=""
COPY images/xla/overrides.txt ./
RUN grep -v '^torch==' constraints.txt > xla-constraints.txt \
 && if [ -n "$TORCH_INDEX" ]; then uv pip install --python /opt/stoker/bin/python --index "$TORCH_INDEX" 'torch==2.9.0'; fi \
 && uv pip install --python /opt/stoker/bin/python -c xla-constraints.txt --override overrides.txt '.[worker]' 'torch_xla[tpu]==2.9.0'
USER stoker
VOLUME /var/lib/stoker
ENV PJRT_DEVICE=TPU
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "worker", "--check"]
ENTRYPOINT ["python", "-m", "worker"]
