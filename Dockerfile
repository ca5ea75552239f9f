# Two stages: the first installs the locked packages. The second contains them and the program, nothing else.
FROM python:3.13-slim AS packages
COPY requirements/run.lock /tmp/run.lock
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement /tmp/run.lock

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin bot \
 && install --directory --owner bot --group bot --mode 0700 /data
COPY --from=packages /opt/venv /opt/venv
COPY bot /app/bot
COPY cogs /app/cogs
# Compiled once, here: as another user, the bot could not store it, and would compile itself again at every start.
RUN python -m compileall -q /app/bot /app/cogs
WORKDIR /app
USER bot
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    BOT_STORAGE__FOLDER=/data BOT_LOG__JSON_LINES=true
VOLUME /data
# The bot handles SIGTERM itself, even as PID 1. Give it time to finish what is paid for (docker stop --time 160).
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "bot"]
CMD ["run"]
