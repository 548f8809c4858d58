"""The settings files of the node's programs, as values: nothing here is written or started."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.certificates import Certificate
from tests.e2e.network import BRIDGE, NODE_ADDRESS

NODE = "node"
CLUSTER_DOMAIN = "cluster.local"
POD_ADDRESSES = "10.98.0.0/16"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CNI_PROGRAMS = "/usr/lib/cni"
PAUSE_IMAGE = "vecstow.test/pause:e2e"


def containerd(network_settings: Path) -> str:
    """containerd's: runc, overlayfs, and the pause image of ours."""
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # The machine may forbid to raise a process's chance of being spared when memory runs out.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{network_settings}"
"""


def network() -> dict[str, object]:
    """CNI's: each pod on one bridge, with an address that a reboot forgets."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": POD_ADDRESSES}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni",
        },
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def kubelet(cgroup: str, authority: Certificate) -> dict[str, object]:
    """kubelet's: on cgroup v1 if the machine has no other, without care for the machine's disk."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "enforceNodeAllocatable": [],
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        # No name of the machine's network is of use to a pod.
        "resolvConf": "",
    }


def proxy(kubeconfig: Path) -> dict[str, object]:
    """kube-proxy's: Services by nftables."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": POD_ADDRESSES,
        "hostnameOverride": NODE,
        "bindAddress": NODE_ADDRESS,
        # The kernel's limits are the machine's.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }


def dns(kubeconfig: Path) -> str:
    """CoreDNS's: the names of Services and pods, and no others."""
    return f"""\
. {{
    bind {NODE_ADDRESS}
    errors
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig}
    }}
}}
"""
