#!/usr/bin/env bash
# Eddy's own image out of the Containerfile, with no engine that runs: image.sh DIR NAME:TAG
# Writes DIR/image.tar, which `ctr images import` takes. Needs root; installs Debian's debootstrap and buildah.
# The base, which a release takes from a registry by its digest, is a small Debian with Python here.
set -euo pipefail
umask 022
[ $# -eq 2 ] || { echo "usage: image.sh DIR NAME:TAG" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "image.sh: must be root" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd); root=$(cd "$here/../.." && pwd)
mkdir -p "$1/image"; D=$(cd "$1/image" && pwd)
t0=$(date +%s); say() { echo "[$(( $(date +%s) - t0 ))s] $*"; }
missing=()
for program in debootstrap buildah; do command -v $program >/dev/null || missing+=($program); done
if [ ${#missing[@]} -gt 0 ]; then
  say "apt: ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}"; } >"$D/apt.log" 2>&1
fi
b() { buildah --root "$D/store" --runroot "$D/run" --storage-driver vfs "$@"; }
base=localhost/python:bookworm

if ! b inspect $base >/dev/null 2>&1; then
  rm -rf "$D/rootfs" "$D/base"; mkdir -p "$D/base"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$D/rootfs" >"$D/debootstrap.log" 2>&1
  ln -sf python3 "$D/rootfs/usr/bin/python"
  tar -C "$D/rootfs" --numeric-owner -cf "$D/base/base.tar" \
    --exclude='./var/cache/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*' \
    --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
    --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' .
  printf 'FROM scratch\nADD base.tar /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' >"$D/base/Containerfile"
  b build --isolation chroot -f "$D/base/Containerfile" -t $base "$D/base" >"$D/base.log" 2>&1
  rm -rf "$D/rootfs" "$D/base"
  say "base: $base"
fi

# what the Containerfile copies, and nothing else: .containerignore says the same
rm -rf "$D/context"; mkdir -p "$D/context/dist"
cp "$root"/{Containerfile,.containerignore,requirements.txt,requirements-gpu.txt} "$D/context/"
(cd "$root" && .venv/bin/python -m hatchling build -t wheel -d "$D/context/dist" >/dev/null 2>&1)
# authorities of the machine, for whoever fetches packages through a proxy
b build --layers --isolation chroot --network host --volume /etc/ssl/certs:/etc/ssl/certs:ro \
  --target cpu --build-arg PYTHON_IMAGE=$base -f "$D/context/Containerfile" -t "$2" "$D/context" >"$D/build.log" 2>&1 ||
  { tail -20 "$D/build.log" >&2; exit 1; }
say "image: $2"
rm -f "$1/image.tar"
b push "$2" "oci-archive:$1/image.tar:$2" >>"$D/build.log" 2>&1
say "$1/image.tar: $(( $(stat -c %s "$1/image.tar") / 1000000 )) MB, compressed"
