# Builds an image of Debian 12 once and keeps it, named for what it is made from: the script that builds it, this file, and
# what hosts inherit of this machine. Shared by the box of LXC hosts and the disk of virtual machines.
# shellcheck shell=bash

# begin_image FOLDER [SUFFIX]: sets `image`, where it is kept, and `work`, where it is built, with the `settings` that hosts
# inherit. Prints the path and ends where the image is there already.
begin_image() {
  local hash free
  mkdir -p "$CACHE/$1"
  work=$(mktemp -d "$CACHE/$1/build.XXXXXX")
  trap 'as_root rm -rf --one-file-system "$work"' EXIT
  settings=$work/settings
  left_out=$(as_root python3 -I "$ROOT/scripts/apt_settings.py" "$settings")
  [ -e "$settings/etc/apt/sources.list.d/debian.sources" ] ||
    fault "apt has no source of Debian 12 here that hosts reach, too${left_out:+; these are none:$'\n'$left_out}" \
      "add one to /etc/apt/sources.list: deb MIRROR bookworm main"
  hash=$({ cat "$0" "${BASH_SOURCE[0]}" && as_root tar -C "$work" --sort=name --mtime=@0 -c settings; } | sha256sum | cut -c1-12)
  image=$CACHE/$1/debian-12-$hash${2:-}
  [ ! -e "$image" ] || { echo "$image" && exit; }
  exec 9>"$CACHE/$1/lock"
  flock -n 9 || say "waiting for another build of the image"
  flock 9
  [ ! -e "$image" ] || { echo "$image" && exit; }
  free=$(df --output=avail -m "$CACHE" | tail -n 1)
  [ "$free" -gt 3072 ] || fault "only $free MiB are free below $CACHE" "free at least 3 GiB there, or set XDG_CACHE_HOME"
}

# root_filesystem PACKAGE...: a plain Debian 12 with systemd and ssh at "$work/rootfs", which is no particular host yet
root_filesystem() {
  local log packages
  log=$(dirname "$image")/build.log
  packages=$(printf '%s,' systemd systemd-sysv libpam-systemd dbus openssh-server sudo iproute2 iputils-ping procps netbase \
    ca-certificates less nano "$@")
  rootfs=$work/rootfs
  ensure_packages mmdebstrap
  [ -z "$left_out" ] || say "hosts do without these settings of apt here:"$'\n'"$left_out"
  # The hosts' own sources from the beginning, in place of Debian's usual ones: where hosts would not get through, this does not.
  # shellcheck disable=SC2016
  if ! as_root env SETTINGS="$settings" mmdebstrap --variant=minbase --include="$packages" \
    --setup-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* && cp -a --remove-destination "$SETTINGS/." "$1/"' \
    bookworm "$rootfs" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fault "mmdebstrap could not build the root file system (log: $log)" "mmdebstrap's own last words are above"
  fi
  as_root bash -s -- "$rootfs" <<'CUSTOMIZE'
set -Eeuo pipefail
trap 'echo "error: customizing the root file system: $BASH_COMMAND" >&2' ERR
rootfs=$1
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$rootfs/etc/hosts"
rm -f "$rootfs/etc/hostname" "$rootfs"/etc/ssh/ssh_host_*
: >"$rootfs/etc/machine-id"
# No package lists are in it; this says so to whoever asks how old they are.
touch -d 2000-01-01 "$rootfs/var/lib/apt/lists"
CUSTOMIZE
}

# keep_image BUILT: in the place of those before it. Logins to a mirror may be in it.
keep_image() {
  chmod -R go= "$1"
  rm -rf --one-file-system "${image%-*}"-*
  mv "$1" "$image"
  echo "$image"
}
