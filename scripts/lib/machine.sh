# What the tests need on a machine beside Rust and Node, and how to get it. Sourced by scripts/test.
# shellcheck shell=bash

# Debian's package for each thing that is missing, one a line.
missing_packages() {
  local path=$PATH:/usr/sbin
  has() { PATH=$path command -v "$1" >/dev/null; }
  has c++ || echo g++
  has redis-server || echo redis-server
  has redis-cli || echo redis-tools
  has luacheck || echo lua-check
  has nginx || echo nginx
  has openssl || echo openssl
  has valgrind || echo valgrind
  [[ -n ${CHROMIUM:-} ]] || has chromium || has chromium-browser || has google-chrome || echo chromium
  # Debian's python3 comes without the part that makes environments.
  python3 -c 'import ensurepip, venv' 2>/dev/null || printf '%s\n' python3 python3-venv
}

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

# A package of a server starts it; the tests start their own, on ports of their own.
stop_service() {
  if [[ -d /run/systemd/system ]]; then
    as_root systemctl disable --now "$1"
  elif [[ -x /etc/init.d/$1 ]]; then
    as_root "/etc/init.d/$1" stop
  fi
}

install_missing() {
  local packages
  mapfile -t packages < <(missing_packages)
  if ((${#packages[@]} == 0)); then
    echo "everything is here"
    return
  fi
  if ! command -v apt-get >/dev/null; then
    echo "please install what Debian calls: ${packages[*]}" >&2
    return 1
  fi
  echo "installing ${packages[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null
  local package
  for package in "${packages[@]}"; do
    case $package in
      redis-server | nginx) stop_service "$package" ;;
    esac
  done
}

# Debian has no cargo-deny: it is built once, in a minute or two, and kept with what else is built.
need_cargo_deny() {
  local tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
  PATH=$tools/bin:$PATH
  if ! command -v cargo-deny >/dev/null; then
    CARGO_TARGET_DIR=$tools/build cargo install --locked --debug --quiet --root "$tools" cargo-deny@0.20.2
    rm -rf "$tools/build"
  fi
}
