# Sourced by the scripts in this folder: installs missing packages.

# install PACKAGE=PROGRAM...: installs each Debian package whose program is missing
install() {
  local missing=() pair
  for pair in "$@"; do
    [ -n "$(PATH=$PATH:/usr/sbin:/sbin type -p "${pair#*=}")" ] || missing+=("${pair%%=*}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! type -p apt-get >/dev/null; then
      echo "these packages are missing, and only root on Debian can install them here: ${missing[*]}" >&2
      exit 1
    fi
    apt-get update -q >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >&2
  fi
}

# install_libraries PACKAGE...: installs each Debian package that is not installed
install_libraries() {
  local package missing=()
  for package in "$@"; do
    [ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package=/nowhere")
  done
  [ ${#missing[@]} = 0 ] || install "${missing[@]}"
}

# the cache for what is built or fetched once per machine
cache() { echo "${XDG_CACHE_HOME:-$HOME/.cache}/k8s-job-dispatcher"; }

# static_build [option]...: compiles the static binary for this machine, with options for cargo, and sets `binary` and `target`
static_build() {
  install musl-tools=musl-gcc
  target=$(uname -m)-unknown-linux-musl
  rustup target add "$target" >&2
  cargo build --locked --release --target "$target" "$@" >&2
  binary=$(target_directory)/$target/release/k8s-job-dispatcher
  if ldd "$binary" 2>/dev/null | grep -q '=>'; then
    echo "$binary is not static" >&2
    exit 1
  fi
}

target_directory() { cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'; }
