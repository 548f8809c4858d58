"""Values that people set, of each kind and in the combinations that meet in one template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.chart.helm import RELEASE

DIGEST = "sha256:" + "0123456789abcdef" * 4
SECRET = "vecstow-keys"
KEYS = {"keys": {"existingSecret": SECRET}}
OPEN = {"keys": {"enabled": False}}
EVERYTHING_MONITORED = {
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"prometheus": "main"}, "interval": "1m"},
        "prometheusRule": {
            "enabled": True, "labels": {"prometheus": "main"}, "runbookUrl": "https://example.org/operations",
        },
        "dashboard": {"enabled": True},
    }
}  # fmt: skip
PLACEMENT = {
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "vectors", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "vecstow"}},
                    },
                }
            ]
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "vecstow"}},
        }
    ],
    "priorityClassName": "important",
}
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


@dataclass(frozen=True)
class Case:
    """One release."""

    values: Mapping[str, Any]
    release: str = RELEASE


CASES = {
    "default": Case(KEYS),
    "release called as the chart": Case(KEYS, "vecstow"),
    "without keys": Case(OPEN),
    "other entries of the Secret": Case(
        {"keys": {"existingSecret": "1", "entries": {"engine": "1", "sidecar": "1e3", "manager": "null"}}}
    ),
    "maintenance": Case(KEYS | {"engine": {"maintenance": True}}),
    "scaled to zero": Case(KEYS | {"engine": {"replicas": 0}}),
    "without a manager": Case(KEYS | {"manager": {"enabled": False}}),
    "no release on uninstall": Case(KEYS | {"manager": {"releaseOnUninstall": False}}),
    "existing claim": Case(KEYS | {"persistence": {"existingClaim": "data-of-old"}}),
    "no storage class": Case(KEYS | {"persistence": {"storageClass": "-", "size": "0.5Ti"}}),
    "storage of every kind": Case(
        KEYS
        | {
            "persistence": {
                "storageClass": "fast",
                "size": "500M",
                "accessModes": ["ReadWriteOncePod"],
                "annotations": {"example.org/backup": "daily"},
                "retentionPolicy": {"whenDeleted": "Delete"},
            }
        }
    ),
    "environment and volumes": Case(
        KEYS
        | {
            "engine": {
                "extraEnv": [
                    {"name": "TZ", "value": "UTC"},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ],
                "extraEnvFrom": [{"secretRef": {"name": "more", "optional": True}}],
                "extraVolumes": [{"name": "import", "persistentVolumeClaim": {"claimName": "dvecdb"}}],
                "extraVolumeMounts": [{"name": "import", "mountPath": "/import", "readOnly": True}],
                "settings": {"import-root": "/import"},
            },
            "sidecar": {"extraEnv": [{"name": "VECSTOW_DEBUG", "value": "1"}], "tickSeconds": 0.5},
            "manager": {"extraEnv": [{"name": "VECSTOW_DEBUG", "value": "1"}], "tickSeconds": 30},
        }
    ),
    "ingress": Case(
        KEYS
        | {
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "64m"},
                "hosts": [
                    {"host": "vectors.example.org", "paths": [{"path": "/", "pathType": "Prefix"}]},
                    {"host": "", "paths": [{"path": "/health/ready", "pathType": "Exact"}]},
                ],
                "tls": [{"secretName": "vectors-tls", "hosts": ["vectors.example.org"]}],
            }
        }
    ),
    "alerts but two": Case(
        KEYS
        | {
            "monitoring": {
                "prometheusRule": {"enabled": True, "disabled": ["VecstowBusy", "VecstowCheckpointLate"]}
            }
        }
    ),
    "everything monitored": Case(
        KEYS | EVERYTHING_MONITORED | {"networkPolicy": {"monitoring": [PROMETHEUS]}}
    ),
    "monitored with a key of its own": Case(
        KEYS
        | {"monitoring": {"podMonitor": {"enabled": True, "keySecret": {"name": "scrape", "key": "key"}}}}
    ),
    "monitored without keys and manager": Case(OPEN | EVERYTHING_MONITORED | {"manager": {"enabled": False}}),
    "chosen clients": Case(
        KEYS
        | {
            "networkPolicy": {
                "clients": [
                    {"podSelector": {"matchLabels": {"app": "search"}}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.2.0.0/16"]}},
                ],
                "monitoring": [PROMETHEUS],
                "apiServer": [{"ipBlock": {"cidr": "192.168.0.0/28"}}],
            }
        }
    ),
    "no clients": Case(KEYS | {"networkPolicy": {"clients": []}}),
    "without network policies": Case(KEYS | {"networkPolicy": {"enabled": False}}),
    "image by digest": Case(
        KEYS
        | {
            "image": {
                "repository": "registry.example.org:5000/team/vecstow",
                "tag": "0.2.0",
                "digest": DIGEST,
                "pullPolicy": "Always",
            },
            "imagePullSecrets": [{"name": "registry"}],
        }
    ),
    "image by tag": Case(KEYS | {"image": {"repository": "ghcr.io/vecstow/vecstow", "tag": "1.10"}}),
    "long release name": Case(
        KEYS | EVERYTHING_MONITORED, "a-release-whose-name-is-as-long-as-helm-lets-it-be-ok"
    ),
    "release name cut at a hyphen": Case(KEYS, "a-release-whose-name-has-hyphens--here-it"),
    "release name with dots": Case(KEYS, "search.v2"),
    "long name": Case(KEYS | {"fullnameOverride": "a" * 40}),
    "another chart name": Case(KEYS | {"nameOverride": "vectors"}),
    "names that YAML takes for something else": Case(
        KEYS
        | EVERYTHING_MONITORED
        | {
            "fullnameOverride": "null",
            "nameOverride": "1",
            "engine": {"name": "1e3", "priorityClassName": ""},
            "ingress": {
                "enabled": True,
                "className": "1",
                "hosts": [{"host": "1", "paths": [{"path": "/", "pathType": "Prefix"}]}],
            },
        },
        "007",
    ),
    "claim that YAML takes for a number": Case(KEYS | {"persistence": {"existingClaim": "1"}}),
    "settings of every kind": Case(
        KEYS
        | {
            "engine": {
                "settings": {
                    "allow-network-file-system": True,
                    "body-bytes-max": 134217728,
                    "index-threads": 4,
                    "retention-hours": 48,
                    "slice-seconds": 0.005,
                    "import-root": "/var/lib/vecstow/import: all #1",
                }
            }
        }
    ),
    "setting that is off": Case(KEYS | {"engine": {"settings": {"allow-network-file-system": False}}}),
    "accounts that are there": Case(
        KEYS | {"serviceAccount": {"create": False, "names": {"engine": "e", "manager": "m", "test": "1"}}}
    ),
    "accounts without one for the test": Case(
        KEYS | {"serviceAccount": {"create": False, "names": {"engine": "e", "manager": "m"}}}
    ),
    "accounts with names of one's own": Case(KEYS | {"serviceAccount": {"names": {"engine": "e"}}}),
    "rights by hand": Case(KEYS | {"rbac": {"create": False}}),
    "annotated accounts": Case(KEYS | {"serviceAccount": {"annotations": {"example.org/role": "vectors"}}}),
    "placement": Case(KEYS | {"engine": PLACEMENT, "manager": PLACEMENT}),
    "without a disruption budget": Case(KEYS | {"podDisruptionBudget": {"enabled": False}}),
    "load balancer": Case(
        KEYS
        | {
            "service": {
                "type": "LoadBalancer",
                "port": 80,
                "externalTrafficPolicy": "Local",
                "ipFamilyPolicy": "PreferDualStack",
                "loadBalancerClass": "example.org/internal",
                "loadBalancerSourceRanges": ["10.0.0.0/8", "fd00::/8"],
                "annotations": {"example.org/internal": "true"},
            }
        }
    ),
    "node port": Case(KEYS | {"service": {"type": "NodePort", "nodePort": 30303}}),
    "dependency": Case(KEYS | {"enabled": True, "global": {"team": "search"}}),
    "IPv6": Case(KEYS | {"engine": {"host": "::"}}),
    "labels and annotations": Case(
        KEYS
        | {
            "commonLabels": {"team": "search", "app.kubernetes.io/part-of": "mine", "tier": "common"},
            "engine": {
                "podLabels": {"tier": "engine", "app.kubernetes.io/component": "mine"},
                "podAnnotations": {"example.org/inject": "false"},
            },
            "manager": {"podLabels": {"tier": "manager"}, "podAnnotations": {"example.org/inject": "false"}},
        }
    ),
    "resources and probes": Case(
        KEYS
        | {
            "engine": {
                "resources": {
                    "requests": {"cpu": 2, "memory": "8Gi", "ephemeral-storage": "1Gi"},
                    "limits": {"cpu": "4", "memory": "8Gi"},
                },
                "startupProbe": {"failureThreshold": 300},
                "livenessProbe": {"initialDelaySeconds": 5, "failureThreshold": 30},
                "terminationGracePeriodSeconds": 3600,
                "preStopSeconds": 60,
                "logFormat": "text",
                "logLevel": "debug",
            },
            "sidecar": {"resources": {"limits": {"cpu": "100m", "memory": "512Mi"}}},
        }
    ),
    "as little as possible": Case(
        OPEN
        | {
            "manager": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "podDisruptionBudget": {"enabled": False},
            "rbac": {"create": False},
            "serviceAccount": {"create": False, "names": {"engine": "e"}},
            "engine": {"maintenance": True, "replicas": 0},
        }
    ),
}
