# docker build --tag ember-reid .                             for CPUs
# docker build --tag ember-reid --build-arg DEVICE=cuda .     for NVIDIA GPUs
# docker run --rm --volume "$PWD:/work" ember-reid ember-reid --help
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY LICENSE README.md pyproject.toml setup.py constraints.txt main.py ./
COPY ember_reid ember_reid
COPY config config
COPY configs configs
COPY data data
COPY engine engine
COPY evaluate evaluate
COPY layers layers
COPY modeling modeling
COPY solver solver
COPY tools tools
# The kernels have to run on every processor on which the image may be started.
RUN EMBER_REID_PORTABLE=1 python -m pip wheel --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# cpu installs the wheels of torch that do not contain CUDA.
ARG DEVICE=cpu
COPY constraints.txt /tmp/constraints.txt
RUN if [ "$DEVICE" = cpu ]; then \
        python -m pip install --no-cache-dir --constraint /tmp/constraints.txt \
            --index-url https://download.pytorch.org/whl/cpu torch torchvision; \
    fi
COPY --from=build /wheels /tmp/wheels
# libgomp runs the threads of the compiled kernels.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && python -m pip install --no-cache-dir --constraint /tmp/constraints.txt /tmp/wheels/*.whl \
    && rm -rf /tmp/wheels
RUN useradd --create-home reid
USER reid
WORKDIR /work
CMD ["ember-reid", "--help"]
