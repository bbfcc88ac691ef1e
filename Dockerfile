# One node. The packages are pinned by hash and installed in a stage of their own, so that the image has no leftovers of it.
FROM python:3.12-slim AS packages
COPY requirements.txt /build/
RUN python -m venv --without-pip /opt/retinue \
    && python -m pip --python /opt/retinue/bin/python install \
        --no-cache-dir --require-hashes --only-binary :all: -r /build/requirements.txt
COPY src/retinue /opt/retinue/src/retinue
RUN /opt/retinue/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >/build/site-packages \
    && echo /opt/retinue/src >"$(cat /build/site-packages)/retinue.pth" \
    && printf '#!/opt/retinue/bin/python\nimport sys\nfrom retinue.cli import main\n\nsys.exit(main())\n' \
        >/opt/retinue/bin/retinue \
    && chmod 755 /opt/retinue/bin/retinue \
    && chmod -R a+rX /opt/retinue

FROM python:3.12-slim
# A named volume takes over owner and mode of the directory it is mounted on.
RUN groupadd --system --gid 10001 retinue \
    && useradd --system --uid 10001 --gid retinue --no-create-home --shell /usr/sbin/nologin retinue \
    && install -d -o retinue -g retinue -m 0700 /data
COPY --from=packages /opt/retinue /opt/retinue
ENV PATH=/opt/retinue/bin:$PATH
# Python's own modules come without byte code, and a node could not keep it: compiling them would take most of its start.
RUN python -c 'import socket, retinue.cli, retinue.server'
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PORT=8000 \
    DATA_DIR=/data
USER retinue
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
# Isolated and without site-packages: this runs once a second in every container. The answer is kept by the engine.
HEALTHCHECK --interval=1s --timeout=5s --retries=10 --start-period=30s CMD ["python", "-I", "-S", "-c", "\
import os, socket, sys\n\
with socket.create_connection(('127.0.0.1', int(os.environ['PORT'])), 4) as node:\n\
    node.sendall(b'GET /health HTTP/1.0\\r\\n\\r\\n')\n\
    answer = node.makefile('rb').read()\n\
print(answer.partition(b'\\r\\n\\r\\n')[2].decode())\n\
sys.exit(answer.split()[1] != b'200')\n"]
ENTRYPOINT ["retinue"]
CMD ["serve"]
