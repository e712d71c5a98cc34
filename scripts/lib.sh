# Shared by the scripts here: progress on the screen, faults with their fix, and root's rights when they are needed.
# shellcheck shell=bash
set -Eeuo pipefail
shopt -s inherit_errexit
# A fault has said what is wrong, also to the scripts that called its script.
FAULT=70
trap '[ $? = $FAULT ] || printf "error: %s, line %s: %s\n" "$0" "$LINENO" "$BASH_COMMAND" >&2' ERR

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/millrace
export ROOT CACHE

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*" >&2; }

# fault CAUSE FIX
fault() {
  printf '\nerror: %s\n  fix: %s\n' "$1" "$2" >&2
  exit $FAULT
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif ! command -v sudo >/dev/null; then
    fault "'$1' needs root's rights, and there is no sudo" "run this as root, or install sudo for $(id -un)"
  elif sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; then
    sudo -E "$@"
  else
    fault "'$1' needs root's rights, and sudo does not give them to $(id -un)" "run this as root, or as a user with sudo"
  fi
}

# ensure_packages NAME...: those that are missing, from apt
ensure_packages() {
  local missing=()
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fault "these programs are missing: ${missing[*]}" "install them with this system's package manager"
  say "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fault "apt could not install ${missing[*]}" "see apt's messages above; check the network and the apt sources"
  fi
  rm -f "$log"
}

# One at a time on this machine, whoever it is: until that descriptor is closed. The folder is the one of millrace/machine.py.
# machine_lock DESCRIPTOR
machine_lock() {
  [ -d /var/lib/millrace ] || as_root install -d -m 0755 /var/lib/millrace
  eval "exec $1</var/lib/millrace"
  flock "$1"
}
