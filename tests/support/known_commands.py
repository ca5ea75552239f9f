"""Every command line in the documents, by what a test can do with it.

A new one belongs into one of these tables: typed by a test, run by another one, or, with the reason, only compared
with what it names.
"""

from __future__ import annotations

BOT = "python -m bot"
EVENING = (
    f"{BOT} init",
    f"{BOT} doctor",
    f"{BOT} run",
    f"{BOT} health",
    f"{BOT} health --ready",
    f"{BOT} backup FILE",
    f"{BOT} verify FILE",
    f"{BOT} restore FILE",
    "pikzels-bot run",
    "pikzels-bot --config FILE run",
    f"sudo env BOT_STORAGE__FOLDER=/var/lib/pikzels-bot {BOT} --config /etc/pikzels-bot/config.toml restore FILE",
)
SYSTEMD = (
    "install --mode 0644 deploy/pikzels-bot.service /etc/systemd/system/",
    "install --directory --mode 0700 /etc/pikzels-bot",
    "install --mode 0600 config.toml secrets/discord-token secrets/pikzels-key /etc/pikzels-bot/",
    "systemctl enable --now pikzels-bot",  # in the place of systemctl, a program that writes its arguments down
)
SECRETS = (
    "mkdir -p secrets",
    'printf %s "$TOKEN" > secrets/discord-token',
    'printf %s "$KEY" > secrets/pikzels-key',
    "sudo chown -R 10001:10001 secrets && sudo chmod -R u=rX,go= secrets",
)
# A test cannot rely on Docker. Its arguments are compared with the Dockerfile, compose.yaml, and the command line.
DOCKER = (
    "docker compose up --detach --build",
    "docker build -t pikzels-bot .",
    "docker build .",
    (
        "docker run -d --name pikzels-bot --restart unless-stopped --stop-timeout 160 --read-only --tmpfs /tmp "
        "--cap-drop ALL --security-opt no-new-privileges -v pikzels-data:/data -v ./secrets:/run/secrets:ro "
        "-p 127.0.0.1:8080:8080 -e BOT_DISCORD__TOKEN_FILE=/run/secrets/discord-token "
        "-e BOT_PIKZELS__API_KEY_FILE=/run/secrets/pikzels-key pikzels-bot"
    ),
    "docker exec pikzels-bot python -m bot backup",
    "docker run --rm -it -v pikzels-data:/data pikzels-bot restore",
    "docker stop pikzels-bot",
)
# They install packages, or take minutes. What make would run is compared with what it must run at the end.
MAKE = {
    "make install": "--requirement requirements/run.lock",
    "make demo": ".venv/bin/python -m bot demo",
    "make test": ".venv/bin/python -m pytest",  # all of these tests; the gate runs it (see below)
    "make torture": "-m faults",
    "make bench": ".venv/bin/python -m benchmarks.table",
    "make docs": ".venv/bin/mkdocs build --strict",
    "make locks": "--output-file requirements/run.lock",
    "make mutants": ".venv/bin/python -m tests.support.mutants --sample 0",
    "make mutants SAMPLE=100": ".venv/bin/python -m tests.support.mutants --sample 100",
}
BENCHMARKS = tuple(
    f"python -m benchmarks.{name}" for name in ("table", "stages", "growth", "boot", "many_servers", "limits")
)
# They install packages. `make install` and the other targets run the same, which is compared.
INSTALLATION = {
    "python3 -m venv .venv": "make install",
    "pip install --require-hashes --only-binary :all: -r requirements/demo.lock": "make demo",
    "pip install --require-hashes -r requirements/run.lock": "make install",
    "python -m pytest": "make test",
}
ELSEWHERE = {
    f'{BOT} demo --once photo.jpg --model pkz_4 --prompt "Big news"': (
        "tests/integration/test_demo.py::test_once_writes_the_thumbnail_to_the_working_directory_and_prints_its_cost"
    ),
    f"{BOT} demo": "tests/integration/test_demo.py::test_the_page_is_served_with_a_first_thumbnail_until_ctrl_c",
    "python -m sandbox.reference": (
        "tests/unit/test_docs.py::test_the_pages_of_the_settings_and_the_commands_are_current"
    ),
    "python -m sandbox.rehearsal": (
        "tests/integration/test_rehearsal.py::test_a_bot_connects_to_the_rehearsal_and_makes_what_a_member_asks_for"
    ),
    "python -m sandbox.launch run": (
        "tests/integration/test_rehearsal.py::test_a_bot_connects_to_the_rehearsal_and_makes_what_a_member_asks_for"
    ),
    "python -m sandbox.launch init": (  # how this file types `init`
        "tests/integration/test_documented_commands.py::test_a_new_operator_can_type_the_commands_in_their_order"
    ),
    "python -m sandbox.screenshots": (
        "tests/integration/test_screenshots.py::test_a_picture_shows_the_last_message_of_the_page"
    ),
    "python -m benchmarks.documents": (
        "tests/unit/test_benchmark_figures.py::test_the_documents_show_the_figures_on_record"
    ),
}
PACKAGE = ("pip install .",)  # needs a build backend from a package index; what it installs is compared
SCRIPTS = ("deploy/build-without-registry.sh", "deploy/test-on-debian.sh")  # need root and minutes; only parsed
KNOWN = {*EVENING, *SYSTEMD, *SECRETS, *DOCKER, *MAKE, *BENCHMARKS, *INSTALLATION, *ELSEWHERE, *PACKAGE, *SCRIPTS}
