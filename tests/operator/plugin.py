"""`kubectl vecstow` as a person types it, and an address that the API server's proxy takes."""

from __future__ import annotations

import os
import random
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
    """Run the plugin as the administrator, in the site's namespace; return its output. Raise PluginFailed."""
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
    for number in random.SystemRandom().sample(range(1, 255), 254):
        address = f"192.0.2.{number}"
        if change_address("add", address):  # else another process has it
            break
    else:
        raise AssertionError("no address can be added")
    try:
        yield address
    finally:
        assert change_address("del", address)


def change_address(verb: str, address: str) -> bool:
    """Whether it could be done."""
    command = ["ip", "address", verb, f"{address}/32", "dev", "lo"]
    return subprocess.run(command, check=False).returncode == 0
