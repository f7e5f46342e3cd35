# The backend alone: web process and worker. Label Studio and vLLM have images of their own; see
# docker-compose.yml. torch comes as the package index resolves it for this platform, everything with the
# hashes of requirements.lock. To hold the base image to one digest, look it up and give it:
#   docker buildx imagetools inspect python:3.11-slim
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:... .     (or PYTHON_IMAGE in .env)
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

COPY requirements.lock requirements-cuda.lock ./
RUN pip install --require-hashes --no-deps -r requirements.lock \
    && if pip show torch | grep -q ^Requires:.*nvidia; then \
         pip install --require-hashes --no-deps -r requirements-cuda.lock; \
       fi

COPY . .

RUN useradd --create-home --uid 10001 freeal \
    && install --directory --owner=freeal --group=freeal /data
USER freeal

# Inside the container all interfaces: what is published, and to whom, is the host's choice. So it
# starts with BASIC_AUTH_USER and BASIC_AUTH_PASS, or with ALLOW_OPEN=true, alone.
ENV HOST=0.0.0.0 \
    PORT=9090 \
    FREEAL_HOME=/data \
    HF_HOME=/data/huggingface
VOLUME /data
EXPOSE 9090

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/ready', timeout=4)"]

CMD ["python", "-m", "backend", "serve"]
