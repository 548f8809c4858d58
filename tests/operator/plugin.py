"""`kubectl vecstow` as a person types it, and an address that the API server's proxy takes."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.operator.site import Site

PLUGIN = Path(sys.executable).with_name("kubectl-vecstow")
SECONDS_MAX = 60


class PluginFailed(Exception):
    """Raised when the plugin ends with an error; the message is what it wrote."""


def plugin(site: Site, *arguments: str) -> str:
    """What it prints, as the administrator, in the site's namespace. Raises PluginFailed."""
    done = subprocess.run(
        [PLUGIN, *arguments, "--namespace", site.namespace],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        env=os.environ | site.cluster.environment,
        check=False,
    )
    if done.returncode != 0:
        raise PluginFailed(f"{done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def may_add_addresses() -> bool:
    """Whether `pod_address` can do its work."""
    return os.geteuid() == 0


@contextmanager
def pod_address() -> Iterator[str]:
    """An address of this machine, of those for documentation, that is no loopback address by its number.

    The API server refuses to be a proxy for loopback addresses.
    """
    address = f"192.0.2.{1 + secrets.randbelow(254)}"
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    try:
        yield address
    finally:
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)
