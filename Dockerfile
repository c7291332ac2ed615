# One image for every role: kubeml worker | ps | control | flower.
#   docker build -t kubeml:0.3.0.dev0-cpu .
#   docker build -t kubeml:0.3.0.dev0-cuda --build-arg VARIANT=cuda .
# VARIANT      cpu or cuda: what torch has to be built for; the build fails if a cuda image got none
# TORCH_INDEX  one more index to find torch in. PyPI's own wheel brings CUDA, and runs on CPUs too;
#              an index of CPU builds makes the cpu image smaller by some gigabytes
# PIP_FIND_LINKS, PIP_NO_INDEX  a folder of wheels in the base image, instead of an index

FROM python:3.11.14-slim-bookworm AS deps
ARG VARIANT=cpu
ARG TORCH_INDEX
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/kubeml
ENV PATH=/opt/kubeml/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# By itself: it is nearly all of the image, and changes least.
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt torch \
    && python -c "import sys, torch; sys.exit('$VARIANT' == 'cuda' and torch.version.cuda is None \
        and 'this torch has no CUDA: give --build-arg TORCH_INDEX')"
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*p['dependencies'], *p['optional-dependencies']['flower'], sep='\n')" > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt

FROM deps AS code
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
COPY . ./
RUN pip install --no-deps --target /opt/code .

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="kubeml" \
      org.opencontainers.image.description="Elastic data-parallel training of PyTorch networks" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/kubeml kubeml \
    && mkdir -p /var/lib/kubeml /var/cache/kubeml \
    && chown kubeml:kubeml /var/lib/kubeml /var/cache/kubeml
COPY --from=deps /opt/kubeml /opt/kubeml
COPY --from=code /opt/code /opt/code
ENV PATH=/opt/code/bin:/opt/kubeml/bin:$PATH \
    PYTHONPATH=/opt/code \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KUBEML_HOME=/var/lib/kubeml \
    KUBEML_CACHE_DIR=/var/cache/kubeml \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /var/lib/kubeml
# A worker gives its slot back and is gone in seconds; a parameter server ends what it has in hand.
STOPSIGNAL SIGTERM
# Whatever role runs here. Flower has none of its own: give it `kubeml probe flower`.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["kubeml", "probe"]
ENTRYPOINT ["kubeml"]
CMD ["--help"]
