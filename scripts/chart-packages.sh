#!/bin/sh
# Brings promtool, which checks the chart's alerts: nothing the second time. It is part of Debian's package of
# Prometheus, of which nothing else is wanted, least of all its service: so that is unpacked, and not installed.
set -eu

place="$HOME/.cache/vecstow/promtool"
! command -v promtool >/dev/null || exit 0
[ ! -x "$place/promtool" ] || exit 0
command -v apt-get >/dev/null || {
    echo "promtool, of Prometheus 2.42 or newer, must be on the PATH: this is no Debian" >&2
    exit 1
}

echo "unpacking promtool into $place"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
cd "$temporary"
fetch="apt-get -o APT::Sandbox::User=root download -qq prometheus"
$fetch 2>/dev/null || { apt-get update -qq && $fetch; }
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
mkdir -p "$place"
mv usr/bin/promtool "$place/"
