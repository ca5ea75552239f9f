#!/usr/bin/env bash
# Runs the tests on the Python 3.13 of Debian 13, in a folder of its own. Needs root and Debian's debootstrap.
#
#   deploy/test-on-debian.sh [FOLDER [ARGUMENTS OF PYTEST]]      the environment is kept in FOLDER for the next time
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(realpath --canonicalize-missing "${1:-/var/tmp/pikzels-bot-image}")
shift || true
. deploy/debian-base.sh
root=$work/tests
inside() { env -i HOME=/root PATH=/usr/sbin:/usr/bin:/bin LANG=C.UTF-8 chroot "$root" "$@"; }
leave() { umount --lazy "$root/proc" "$root/dev" 2> /dev/null || true; }
trap leave EXIT
leave # what a killed run has left: nothing below may reach the /dev of this machine

if ! cmp --silent requirements/dev.lock "$root/dev.lock"; then
    rm -rf --one-file-system "$root"
    cp --archive "$base" "$root"
    cp --dereference /etc/resolv.conf /etc/hosts "$root/etc/"
    for path in "${own[@]}"; do mkdir -p "$root$(dirname "$path")" && cp --recursive --dereference "$path" "$root$(dirname "$path")/"; done
    cp requirements/dev.lock "$root/tmp/"
    inside python3 -m venv /opt/venv
    inside env ${own[*]:+SSL_CERT_FILE="${own[-1]}" PIP_CERT="${own[-1]}"} \
        /opt/venv/bin/pip install --quiet --require-hashes --only-binary :all: --requirement /tmp/dev.lock
    cp requirements/dev.lock "$root/dev.lock"
fi
rm -rf "$root/work"
git clone --quiet . "$root/work"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
inside sh -c 'cd /work && exec /opt/venv/bin/python -m pytest "$@"' sh "${@:--n2}"
