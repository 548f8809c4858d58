#!/bin/sh
# Installs what a test node needs of Debian, where it is missing: nothing the second time.
set -eu

packages="buildah conntrack containerd containernetworking-plugins debootstrap iproute2 mount
    nftables openssl runc util-linux xfsprogs"

missing=
for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "installing$missing"
apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
