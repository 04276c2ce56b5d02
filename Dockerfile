# The service on a CPU. Research use only, not a medical device.
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/pulmofuse
ENV PATH=/opt/pulmofuse/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The CPU build first: PyPI's build for Linux brings gigabytes of CUDA along.
COPY constraints.txt ./
RUN pip install --index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN pip install -c constraints.txt ".[postgresql]"

FROM python:3.11-slim
COPY --from=build /opt/pulmofuse /opt/pulmofuse
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pulmofuse \
    && install -d -o pulmofuse -m 0700 /data
ENV PATH=/opt/pulmofuse/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PULMOFUSE_DATABASE=/data/trail.sqlite \
    PULMOFUSE_HOME=/tmp/pulmofuse
USER 10001
WORKDIR /tmp
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["pulmofuse"]
CMD ["serve", "/bundle", "--host", "0.0.0.0"]
