#!/usr/bin/env bash
# Builds the image of the Dockerfile where no base image can be pulled, and tries it. The base is made from Debian's
# packages instead. Needs root, Debian's buildah and debootstrap, and the development environment (make .venv/dev).
#
#   deploy/build-without-registry.sh [FOLDER]      the base is kept in FOLDER for the next time
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(realpath --canonicalize-missing "${1:-/var/tmp/pikzels-bot-image}")
suite=trixie # Debian 13 has Python 3.13, like the base image
base=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' Dockerfile | head -n 1)
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }
mkdir -p "$work"

if [ ! -e "$work/base.done" ]; then
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2> /dev/null \
        | sed -nE 's#^(deb|URIs:) +(https?://[^ ]*/debian/?)( .*)?$#\2#p' | head -n 1 || true)
    rm -rf "$work/base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,passwd "$suite" "$work/base" ${mirror:+"$mirror"}
    rm -rf "$work/base"/var/cache/apt/archives/*.deb "$work/base"/var/lib/apt/lists/*
    touch "$work/base.done"
fi
if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
    container=$(buildah from scratch)
    buildah copy --quiet "$container" "$work/base" /
    buildah commit --quiet "$container" "$base" > /dev/null
    buildah rm "$container" > /dev/null
fi

# pip's settings and the certificates of this machine, which may reach packages in a way of its own.
mounts=()
for path in /etc/pip.conf /etc/xdg/pip; do
    [ -e "$path" ] && mounts+=(--volume "$path:$path:ro")
done
certificates=$(python3 -c 'import ssl; print(ssl.get_default_verify_paths().cafile or "")')
[ -n "$certificates" ] && mounts+=(--volume "$(realpath "$certificates"):/etc/ssl/certs/ca-certificates.crt:ro")
buildah bud --quiet --format docker --pull-never --network host "${mounts[@]}" --tag pikzels-bot . > /dev/null

container=$(buildah from --pull-never pikzels-bot)
trap 'buildah umount "$container" > /dev/null; buildah rm "$container" > /dev/null' EXIT
root=$(buildah mount "$container")
size() { du --summarize --block-size=1M "$@" | cut -f 1; }
echo "The image has $(size "$root") MB: $(size "$root/opt/venv") MB of packages, $(size "$root/app") MB of program, and the base."
config=$(buildah inspect --type image pikzels-bot \
    | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["Docker"]["config"]))')
IMAGE_ROOT=$root IMAGE_CONFIG=$config .venv/bin/python -m pytest -q -p no:cacheprovider -n 0 tests/container
