# The pipeline and its page in a container.
#
#   docker build -t crossmodal .                          # CPU; a GPU too: --build-arg DEVICE=gpu, which is 5 GB larger
#   docker run -v crossmodal:/crossmodal crossmodal       # make repro; its outs stay in the volume
#   docker run -v crossmodal:/crossmodal -p 127.0.0.1:8000:8000 crossmodal crossmodal serve --host 0.0.0.0
#   docker run --gpus all --shm-size 2g -v crossmodal:/crossmodal crossmodal dvc exp run -S model=sgraf
#
# A volume keeps the code it was made with, too: after building another image, docker volume rm crossmodal.
FROM python:3.11-slim-bookworm

# A compiler makes SGRAF faster on a CPU.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc git libc6-dev make \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 crossmodal \
 && install -d -o crossmodal -g crossmodal /crossmodal
USER crossmodal
WORKDIR /crossmodal
ENV PATH=/crossmodal/.venv/bin:$PATH \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1

# The pinned packages, in a layer that a change of the code leaves alone.
ARG DEVICE=cpu
COPY --chown=crossmodal .ci/requirements-cpu requirements.txt requirements-uv.txt /tmp/lock/
RUN python -m venv .venv \
 && pip install --no-cache-dir --disable-pip-version-check -q -r /tmp/lock/requirements-uv.txt \
 && case "$DEVICE" in \
      gpu) uv pip install -q -r /tmp/lock/requirements.txt ;; \
      cpu) mkdir /tmp/split && sh /tmp/lock/requirements-cpu /tmp/lock/requirements.txt /tmp/split \
        && uv pip install -q --no-deps --require-hashes -r /tmp/split/rest.txt \
        && uv pip install -q --no-deps --torch-backend cpu -r /tmp/split/torch.txt ;; \
      *) echo "DEVICE=$DEVICE: expected cpu or gpu" >&2; exit 2 ;; \
    esac

COPY --chown=crossmodal . .
# make finds everything installed.
RUN uv pip install -q --no-deps -e . && touch .venv/bin/.installed \
 && git config --global --add safe.directory /crossmodal

EXPOSE 8000
CMD ["make", "repro"]
