#!/usr/bin/env bash
# Installs what geojax needs: Debian packages for the Mininet WAN (as root on Debian or Ubuntu), and
# .venv with the pinned Python packages and this checkout, editable. Does nothing the second time.
# PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# mininet: mnexec and its tools; bridge-utils, iproute2: LANs and shaped links; iputils-ping: checks.
SYSTEM_PACKAGES="mininet bridge-utils iproute2 iputils-ping net-tools procps iperf3 dataset-fashion-mnist"
VENV=.venv
STAMP=$VENV/.installed

say() { printf 'setup: %s\n' "$*" >&2; }

is_debian() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }

is_root() { [ "$(id -u)" = 0 ]; }

missing_packages() {
  local name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
  done
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  local output install="apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 install"
  # The lists may be absent or old; they are fetched only when an install shows that they are.
  $install "$@" >/dev/null 2>&1 && return
  output=$({ apt-get -qq update && $install "$@"; } 2>&1) && return
  printf '%s\n' "$output" >&2
  return 1
}

install_system_packages() {
  if ! is_debian; then
    [ "$(uname -s)" = Linux ] && command -v mnexec >/dev/null && return
    say "no apt-get: left out Mininet and Fashion-MNIST; runs use the simulated WAN."
    return
  fi
  local missing
  missing=$(missing_packages $SYSTEM_PACKAGES)
  [ -z "$missing" ] && return
  if ! is_root; then
    say "not root: left out" $missing "- without Mininet, runs use the simulated WAN."
    return
  fi
  say "installing" $missing
  apt_install $missing || say "apt-get failed: left out" $missing "- see the lines above."
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  say "geojax needs Python 3.11 or newer; found: $("${PYTHON:-python3}" --version 2>/dev/null || echo none)."
  say "Install one (Ubuntu 22.04: apt-get install python3.11 python3.11-venv), or name it:" \
    "make setup PYTHON=/path/to/python3.11"
  return 1
}

create_venv() {
  local python version
  python=$(find_python)
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if ! { is_debian && is_root && apt_install "python$version-venv"; }; then
      say "$python cannot create virtual environments: apt-get install python$version-venv"
      return 1
    fi
  fi
  say "creating $VENV with $("$python" --version)"
  "$python" -m venv --clear "$VENV"
}

fingerprint() { pwd && cksum pyproject.toml constraints.txt tools/setup.sh; }

install_python_packages() {
  [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(fingerprint)" ] && return
  "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || create_venv
  say "installing Python packages into $VENV"
  local quiet=--quiet # progress bars are for terminals
  [ -t 1 ] && quiet=
  # pip compiles on one core, compileall on all of them: together a third to a half of the time.
  "$VENV/bin/python" -m pip install --disable-pip-version-check --no-compile $quiet \
    --constraint constraints.txt --editable '.[dev,fast,mininet,bayesian]'
  "$VENV/bin/python" -m compileall -qq -j 0 -x '/tests/' "$VENV"/lib/python3*/site-packages || true
  fingerprint >"$STAMP"
}

install_system_packages
install_python_packages
