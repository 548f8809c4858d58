#!/bin/sh
# Brings promtool, which checks the chart's alerts: nothing the second time. It is part of Debian's package of
# Prometheus, of which nothing else is wanted, least of all its service: so that is unpacked, and not installed.
set -eu

place="$HOME/.cache/vecstow/promtool"
command -v promtool >/dev/null || [ -x "$place/promtool" ] || {
    echo "unpacking promtool into $place"
    temporary=$(mktemp -d)
    trap 'rm -rf "$temporary"' EXIT
    cd "$temporary"
    apt-cache show prometheus >/dev/null 2>&1 || apt-get update -qq
    apt-get -o APT::Sandbox::User=root download -qq prometheus
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    mkdir -p "$place"
    mv usr/bin/promtool "$place/"
}
