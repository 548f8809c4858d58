"""A network of the node's own: nothing of it is seen outside, and nothing outside is reached from it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

CLONE_NEWNET = 0x40000000
NODE_ADDRESS = "10.97.0.1"
DEVICE = "node0"
PEER = "node1"
BRIDGE = "cni0"
SYSTEM = Path("/proc/sys/net")
"""Settings of the calling thread's network."""


class Network:
    """A network namespace that the calling thread enters, and so does whatever it starts afterwards.

    It has no name: it is gone when the last process in it is.
    """

    def __init__(self) -> None:
        self._outside: int | None = None

    def enter(self) -> None:
        """Make one, with an address for the node, and the default route that kubelet finds it by."""
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _call("unshare", CLONE_NEWNET)
        # There may be no dummy device: the address stands on one end of a pair, and both ends are here.
        for command in (
            "link set lo up",
            f"link add {DEVICE} type veth peer name {PEER}",
            f"link set {PEER} up",
            f"link set {DEVICE} up",
            f"address add {NODE_ADDRESS}/24 dev {DEVICE}",
            f"route add default dev {DEVICE}",
        ):
            ip(*command.split())
        (SYSTEM / "ipv4" / "ip_forward").write_text("1")
        # Without it an answer from one pod of the bridge to another would not pass the Service's translation.
        (SYSTEM / "bridge" / "bridge-nf-call-iptables").write_text("1")

    def leave(self) -> None:
        """Take the thread back to where it came from; nothing happens when it is there."""
        if self._outside is not None:
            _call("setns", self._outside, CLONE_NEWNET)
            os.close(self._outside)
            self._outside = None

    def forget(self) -> None:
        """Remove what a reboot removes: the pods' bridge, the rules of Services, and every connection."""
        if _exists(BRIDGE):
            ip("link", "delete", BRIDGE)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        subprocess.run(["conntrack", "--flush"], check=True, capture_output=True)


def ip(*arguments: str) -> None:
    """The command `ip`, in the thread's network."""
    subprocess.run(["ip", *arguments], check=True)


def _exists(device: str) -> bool:
    return f"{device}:" in Path("/proc/thread-self/net/dev").read_text()


def _call(name: str, *arguments: int) -> None:
    """A call to the C library; Python has these from 3.12 on."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
