#!/usr/bin/env bash
# Builds the image of the Dockerfile where no base image can be pulled, and tries it. The base is made from Debian's
# packages instead. Needs root, Debian's buildah and debootstrap, and the development environment (make .venv/dev).
#
#   deploy/build-without-registry.sh [FOLDER]      the base is kept in FOLDER for the next time
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(realpath --canonicalize-missing "${1:-/var/tmp/pikzels-bot-image}")
. deploy/debian-base.sh
image=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' Dockerfile | head -n 1)
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }

if ! buildah inspect --type image "$image" > /dev/null 2>&1; then
    container=$(buildah from scratch)
    buildah copy --quiet "$container" "$base" / > /dev/null
    buildah commit --quiet "$container" "$image" > /dev/null
    buildah rm "$container" > /dev/null
fi
mounts=()
for path in "${own[@]}"; do mounts+=(--volume "$(realpath "$path"):$path:ro"); done
buildah bud --quiet --format docker --pull-never --network host "${mounts[@]}" --tag pikzels-bot . > /dev/null

container=$(buildah from --pull-never pikzels-bot)
trap 'buildah umount "$container" > /dev/null; buildah rm "$container" > /dev/null' EXIT
root=$(buildah mount "$container")
size() { du --summarize --block-size=1M "$@" | cut -f 1; }
echo "The image has $(size "$root") MB: $(size "$root/opt/venv") MB of packages, $(size "$root/app") MB of program, and the base."
config=$(buildah inspect --type image pikzels-bot \
    | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["Docker"]["config"]))')
IMAGE_ROOT=$root IMAGE_CONFIG=$config .venv/bin/python -m pytest -q -p no:cacheprovider -n 0 tests/container
