# Builds an image of Debian 12 once and keeps it, named for what it is made from: the script that builds it, this file, and
# what hosts inherit from this machine. Shared by the box of LXC hosts and the disk of virtual machines.
# shellcheck shell=bash

# Hosts reach what this machine reaches: its apt sources and settings, and its extra CA certificates.
certificates=/usr/local/share/ca-certificates

# begin_image FOLDER [SUFFIX]: sets `image`, where it is kept, and `work`, where it is built. Prints the path and ends where it
# is there already.
begin_image() {
  local inherited=() path hash free
  for path in /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/apt.conf.d "$certificates"; do
    [ ! -e "$path" ] || inherited+=("$path")
  done
  hash=$({ cat "$0" "${BASH_SOURCE[0]}" && find "${inherited[@]}" -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum | cut -c1-12)
  image=$CACHE/$1/debian-12-$hash${2:-}
  [ ! -e "$image" ] || { echo "$image" && exit; }
  mkdir -p "$CACHE/$1"
  exec 9>"$CACHE/$1/lock"
  flock -n 9 || say "waiting for another build of the image"
  flock 9
  [ ! -e "$image" ] || { echo "$image" && exit; }
  free=$(df --output=avail -m "$CACHE" | tail -n 1)
  [ "$free" -gt 3072 ] || fault "only $free MiB are free below $CACHE" "free at least 3 GiB there, or set XDG_CACHE_HOME"
  work=$(mktemp -d "$CACHE/$1/build.XXXXXX")
  trap 'as_root rm -rf --one-file-system "$work"' EXIT
}

# root_filesystem PACKAGE...: a plain Debian 12 with systemd and ssh at "$work/rootfs", which is no particular host yet
root_filesystem() {
  local log packages
  log=$(dirname "$image")/build.log
  packages=$(printf '%s,' systemd systemd-sysv libpam-systemd dbus openssh-server sudo iproute2 iputils-ping procps netbase \
    ca-certificates less nano "$@")
  rootfs=$work/rootfs
  ensure_packages mmdebstrap
  if ! as_root mmdebstrap --variant=minbase --include="$packages" bookworm "$rootfs" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fault "mmdebstrap could not build the root file system (log: $log)" "mmdebstrap's own last words are above"
  fi
  as_root bash -s -- "$rootfs" "$certificates" <<'CUSTOMIZE'
set -Eeuo pipefail
trap 'echo "error: customizing the root file system: $BASH_COMMAND" >&2' ERR
rootfs=$1
certificates=$2
rm -f "$rootfs"/etc/apt/sources.list "$rootfs"/etc/apt/sources.list.d/*
for path in sources.list sources.list.d apt.conf.d; do
  [ ! -e "/etc/apt/$path" ] || cp -a "/etc/apt/$path" "$rootfs/etc/apt/"
done
# What belongs to containers of other kinds (they delete the packages that were just fetched).
rm -f "$rootfs"/etc/apt/apt.conf.d/docker-* "$rootfs"/etc/apt/sources.list.d/*.disabled*
if [ -d "$certificates" ]; then
  mkdir -p "$rootfs/usr/local/share/ca-certificates"
  find "$certificates" -name '*.crt' -exec cp {} "$rootfs/usr/local/share/ca-certificates/" \;
  chroot "$rootfs" update-ca-certificates >/dev/null 2>&1
fi
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$rootfs/etc/hosts"
rm -f "$rootfs/etc/hostname" "$rootfs"/etc/ssh/ssh_host_*
: >"$rootfs/etc/machine-id"
# No package lists are in it; this says so to whoever asks how old they are.
touch -d 2000-01-01 "$rootfs/var/lib/apt/lists"
CUSTOMIZE
}

# keep_image BUILT: in the place of those before it
keep_image() {
  rm -rf --one-file-system "${image%-*}"-*
  mv "$1" "$image"
  echo "$image"
}
