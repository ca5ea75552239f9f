# Makes a folder with a minimal Debian 13, whose Python is 3.13 as in the base image of the Dockerfile; for the scripts
# beside it. It needs root and Debian's debootstrap. Sets `base`; `work` is where it is kept for the next time.
base=$work/base
mkdir -p "$work"
if [ ! -e "$base.done" ]; then
    # The same mirror as this machine's own packages.
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2> /dev/null \
        | sed -nE 's#^(deb|URIs:) +(https?://[^ ]*/debian/?)( .*)?$#\2#p' | head -n 1 || true)
    rm -rf "$base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,passwd trixie "$base" ${mirror:+"$mirror"}
    rm -rf "$base"/var/cache/apt/archives/*.deb "$base"/var/lib/apt/lists/*
    touch "$base.done"
fi
# Settings of pip, and certificates, may be this machine's own. Each is a file or folder that must exist in both places.
own=()
for path in /etc/pip.conf /etc/xdg/pip "$(python3 -c 'import ssl; print(ssl.get_default_verify_paths().cafile or "")')"; do
    if [ -n "$path" ] && [ -e "$path" ]; then own+=("$path"); fi
done
