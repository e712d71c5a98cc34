# Shared by the scripts here: the state that they run in, progress on the screen, faults with their fix, and root's rights when
# they are needed.
# shellcheck shell=bash
set +o posix
set -Eeuo pipefail
shopt -s inherit_errexit
# A fault has said what is wrong, also to the scripts that called its script.
FAULT=70
trap '[ $? = $FAULT ] || printf "error: %s, line %s: %s\n" "$0" "$LINENO" "$BASH_COMMAND" >&2' ERR

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*" >&2; }

# fault CAUSE FIX
fault() {
  printf '\nerror: %s\n  fix: %s\n' "$1" "$2" >&2
  exit $FAULT
}

# What reaches the product of a person's shell; bash -p leaves functions, options and startup files behind. Any other variable
# may mean something to one of the many tools that run here (PYTHONPATH, PIP_USER, TF_WORKSPACE, AIRFLOW_HOME, GIT_DIR, ...).
inherited() {
  case $1 in
    # The account and its terminal.
    HOME | USER | LOGNAME | PATH | PWD | OLDPWD | SHLVL | _ | TMPDIR | TZ | TERM | COLORTERM | COLUMNS | LINES | NO_COLOR | EDITOR) ;;
    XDG_*_HOME | XDG_*_DIRS | XDG_RUNTIME_DIR | SSH_AUTH_SOCK | SUDO_ASKPASS) ;;
    # The product's own.
    MILLRACE_* | ONLY | ROUNDS | FRESH | PATIENCE | PYTHONUNBUFFERED) ;;
    # The way to the registries.
    [Hh][Tt][Tt][Pp]_[Pp][Rr][Oo][Xx][Yy] | [Hh][Tt][Tt][Pp][Ss]_[Pp][Rr][Oo][Xx][Yy] | [Aa][Ll][Ll]_[Pp][Rr][Oo][Xx][Yy] | [Nn][Oo]_[Pp][Rr][Oo][Xx][Yy]) ;;
    SSL_CERT_FILE | SSL_CERT_DIR | SSL_CLIENT_CERT | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE | AWS_CA_BUNDLE) ;;
    PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_FIND_LINKS | PIP_NO_INDEX | PIP_TRUSTED_HOST | PIP_CERT | PIP_CLIENT_CERT | PIP_PROXY) ;;
    PIP_TIMEOUT | PIP_DEFAULT_TIMEOUT | PIP_RETRIES | PIP_CACHE_DIR | PIP_KEYRING_PROVIDER | PIP_CONFIG_FILE) ;;
    PIP_DISABLE_PIP_VERSION_CHECK) ;;
    UV_DEFAULT_INDEX | UV_INDEX | UV_INDEX_* | UV_EXTRA_INDEX_URL | UV_FIND_LINKS | UV_NO_INDEX | UV_INSECURE_HOST) ;;
    UV_NATIVE_TLS | UV_SYSTEM_CERTS | UV_KEYRING_PROVIDER | UV_CACHE_DIR | UV_HTTP_TIMEOUT | UV_HTTP_RETRIES | UV_CONFIG_FILE | UV_NO_CONFIG) ;;
    # Where hosts are made, and with what rights.
    VAGRANT_DEFAULT_PROVIDER | VAGRANT_HOME | VAGRANT_LOG | LIBVIRT_DEFAULT_URI | AWS_* | TF_VAR_* | TF_CLI_CONFIG_FILE) ;;
    TF_PLUGIN_CACHE_DIR | TF_TOKEN_* | TF_LOG | TF_LOG_PATH) ;;
    # How much Ansible says, and how.
    ANSIBLE_VERBOSITY | ANSIBLE_DEBUG | ANSIBLE_FORCE_COLOR | ANSIBLE_NOCOLOR | ANSIBLE_LOG_PATH | ANSIBLE_CALLBACKS_ENABLED) ;;
    ANSIBLE_FORKS) ;;
    # Hosts wait for each other in every play; whether Ansible's own or the faster one sees to that is a person's choice.
    ANSIBLE_STRATEGY) [[ $2 = *linear ]] ;;
    # These say something else wherever they are not what is set below.
    LC_ALL) [ "$2" = C.UTF-8 ] ;;
    *) return 1 ;;
  esac
}

foreign=()
while IFS== read -r -d '' name value; do
  inherited "$name" "$value" || foreign+=(-u "$name")
done < <(env -0)
# Not by its bare name, which `env` would look for on PATH.
[ ${#foreign[@]} = 0 ] || exec env "${foreign[@]}" LC_ALL=C.UTF-8 "$(dirname -- "$0")/${0##*/}" "$@"
unset foreign name value
# For Python of .venv (scripts/setup): what is set from here on is meant.
export MILLRACE_CLEAN=1

# The language of tools whose output is read here; what files are made with; a standard input for tools that look at it.
export LC_ALL=C.UTF-8
umask 022
[ -e /dev/fd/0 ] || exec </dev/null
# Bash knows the account's.
[ -n "${HOME:-}" ] || unset HOME
export HOME=~
[[ ${XDG_CACHE_HOME:-/} = /* ]] || unset XDG_CACHE_HOME
[[ ${XDG_STATE_HOME:-/} = /* ]] || unset XDG_STATE_HOME
# Ansible's socket there has a name that may have 107 characters in all.
[[ ${TMPDIR:-} = /* && ${#TMPDIR} -le 60 && -d $TMPDIR && -w $TMPDIR ]] || unset TMPDIR

unset CDPATH
ROOT=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/millrace
export ROOT CACHE
# The clone's tools first; programs for administrators are not on everybody's PATH.
PATH=$ROOT/.venv/bin:${PATH//"$ROOT/.venv/bin:"/}
export PATH=${PATH%:/usr/local/sbin:/usr/sbin:/sbin}:/usr/local/sbin:/usr/sbin:/sbin
[ -z "${MILLRACE_HOSTS:-}" ] || export ANSIBLE_INVENTORY=$ROOT/inventories/$MILLRACE_HOSTS

# environment COMMAND...: what is to know of the environment that MILLRACE_ENV names
environment() { "$ROOT/.venv/bin/python" -P -m millrace.environment "$@"; }

# package_settings [PYTHON]: how pip and uv find packages from here on
package_settings() {
  local exports
  exports=$("${1:-$ROOT/.venv/bin/python}" "$ROOT/scripts/package_settings.py") && eval "$exports"
}

# Whether sudo can ask for a password: at the terminal itself, whatever this script reads from (Vagrant gives its scripts a pipe).
can_ask() { [ -n "${SUDO_ASKPASS:-}" ] || { : </dev/tty; } 2>/dev/null; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif ! command -v sudo >/dev/null; then
    fault "'$1' needs root's rights, and there is no sudo" "run this as root, or install sudo for $(id -un)"
  elif sudo -n true 2>/dev/null || { can_ask && sudo -v; }; then
    sudo -E "$@"
  elif can_ask; then
    fault "'$1' needs root's rights, and sudo does not give them to $(id -un)" "run this as root, or as a user with sudo"
  else
    fault "'$1' needs root's rights, and sudo has no terminal to ask $(id -un) for a password" "run this in a terminal, or as root"
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
    fault "apt could not install ${missing[*]}" "apt's own messages are above"
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
