# Two stages: the first installs the locked packages. The second contains them and the program, nothing else.
FROM python:3.13-slim AS packages
COPY requirements/run.lock /tmp/run.lock
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement /tmp/run.lock \
 # The program never installs anything, so pip would only be one more thing to keep up to date.
 && /opt/venv/bin/python -m pip uninstall --yes --quiet pip

FROM python:3.13-slim
# The same number everywhere, so that the owner of /data and of secret files can be set from outside.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin bot \
 && install --directory --owner bot --group bot --mode 0700 /data
COPY --from=packages /opt/venv /opt/venv
COPY bot /app/bot
COPY cogs /app/cogs
# Readable whatever the umask of the checkout was. Compiled once, here: as another user, the bot could not store it, and
# would compile itself again at every start.
RUN chmod -R a+rX /app && /opt/venv/bin/python -m compileall -q /app/bot /app/cogs
WORKDIR /app
USER bot
# Health and metrics answer on every address of the container; outside of it, only where the port is published.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    BOT_STORAGE__FOLDER=/data BOT_LOG__JSON_LINES=true BOT_HEALTH__HOST=0.0.0.0 BOT_HEALTH__PORT=8080
VOLUME /data
EXPOSE 8080
# It says whether a restart would help. An empty balance, or an outage of Discord or of Pikzels, never makes it fail.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "bot", "health"]
# The bot handles SIGTERM itself, even as PID 1. Give it time to finish what is paid for (docker stop --time 160).
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "bot"]
CMD ["run"]
