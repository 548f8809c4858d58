"""Values that cannot work are refused before anything is asked, with the field's name and what it may be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from tests.chart.conftest import Render
from tests.chart.helm import CHART, CRD_CHART, Helm, HelmFailed, container
from tests.chart.matrix import CASES, KEYS
from vecstow_engine.cli.options import Flag
from vecstow_engine.cli.serving import FLAGS

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
NOT_ALLOWED: Final = "additional properties"
TYPES = {bool: "boolean", float: "number", int: "integer"}
FREE = ("commonLabels", "podSecurityContext", "engine.settings", "monitoring.dashboard.labels")
"""Mappings of `values.yaml` whose keys are the user's, or are tried elsewhere."""
OWN_FLAGS = {
    "--data", "--host", "--keys", "--log-format", "--log-level", "--name", "--pod-uid", "--port",
    "--without-keys",
}  # fmt: skip
"""The flags that the chart sets itself."""

BAD = [
    ("replicas of two engines", "engine.replicas", 2, "one of"),
    ("replicas as text", "engine.replicas", "1", "one of"),
    ("replicas below nothing", "engine.replicas", -1, "one of"),
    ("engine's name in upper case", "engine.name", "Vecstow", "pattern"),
    ("engine's name too long", "engine.name", "a" * 64, "pattern"),
    ("engine's name empty", "engine.name", "", "pattern"),
    ("engine's name with a hyphen last", "engine.name", "a-", "pattern"),
    ("engine's name with a line's end", "engine.name", "a\n", "pattern"),
    ("loopback as host", "engine.host", "127.0.0.1", "one of"),
    ("unknown log format", "engine.logFormat", "logfmt", "one of"),
    ("unknown log level", "engine.logLevel", "trace", "one of"),
    ("maintenance as text", "engine.maintenance", "true", "want boolean"),
    ("unknown setting", "engine.settings", {"checkpoint-second": 60}, NOT_ALLOWED),
    ("setting by its field", "engine.settings", {"checkpoint_seconds": 60}, NOT_ALLOWED),
    ("setting that the chart makes", "engine.settings", {"data": "/data"}, NOT_ALLOWED),
    ("setting of another type", "engine.settings", {"index-threads": "four"}, "want integer"),
    ("setting with a fraction", "engine.settings", {"handles-max": 1.5}, "want integer"),
    ("setting below its bound", "engine.settings", {"handles-max": 0}, "minimum"),
    ("setting of time below nothing", "engine.settings", {"retention-hours": -1}, "minimum"),
    ("switch as text", "engine.settings", {"allow-network-file-system": "yes"}, "want boolean"),
    ("variable without a name", "engine.extraEnv", [{"value": "1"}], "missing property 'name'"),
    ("variable that is a number", "engine.extraEnv", [{"name": "A", "value": 1}], "want string"),
    ("variables as a mapping", "engine.extraEnv", {"A": "1"}, "want array"),
    ("volume without a name", "engine.extraVolumes", [{"emptyDir": {}}], "missing property 'name'"),
    ("mount without a path", "engine.extraVolumeMounts", [{"name": "a"}], "missing property 'mountPath'"),
    ("no time to end", "engine.terminationGracePeriodSeconds", 5, "minimum"),
    ("no time before the end", "engine.preStopSeconds", 0, "minimum"),
    ("probe without a period", "engine.readinessProbe", {"periodSeconds": 0}, "minimum"),
    ("probe of another route", "engine.livenessProbe", {"httpGet": {"path": "/"}}, NOT_ALLOWED),
    ("bad quantity of memory", "engine.resources", {"limits": {"memory": "2GB"}}, "pattern"),
    ("bad quantity of processors", "engine.resources", {"requests": {"cpu": "half"}}, "pattern"),
    ("resources at the wrong level", "engine.resources", {"memory": "2Gi"}, NOT_ALLOWED),
    ("label that is a number", "engine.podLabels", {"a": 1}, "want string"),
    ("size without a unit", "persistence.size", "10", "pattern"),
    ("size as a number", "persistence.size", 10, "want string"),
    ("size in GB", "persistence.size", "10GB", "pattern"),
    ("size of nothing", "persistence.size", "0Gi", "pattern"),
    ("size of nothing, with a fraction", "persistence.size", "0.0Gi", "pattern"),
    ("size below nothing", "persistence.size", "-1Gi", "pattern"),
    ("size in bytes' thousandths", "persistence.size", "10m", "pattern"),
    ("bad name of a storage class", "persistence.storageClass", "Fast", "pattern"),
    ("volume of many writers", "persistence.accessModes", ["ReadWriteMany"], "one of"),
    ("no access mode", "persistence.accessModes", [], "minItems"),
    ("claim that is kept by another word", "persistence.retentionPolicy", {"whenDeleted": "Keep"}, "one of"),
    ("bad name of a claim", "persistence.existingClaim", "data/0", "pattern"),
    ("tag in the repository", "image.repository", "vecstow:0.2.0", "pattern"),
    ("scheme in the repository", "image.repository", "https://example.org/vecstow", "pattern"),
    ("repository empty", "image.repository", "", "pattern"),
    ("tag as a number", "image.tag", 0.1, "want string"),
    ("tag with a colon", "image.tag", ":0.2.0", "pattern"),
    ("tag too long", "image.tag", "a" * 129, "pattern"),
    ("digest without its kind", "image.digest", "0123456789abcdef" * 4, "pattern"),
    ("digest too short", "image.digest", "sha256:0123", "pattern"),
    ("unknown pull policy", "image.pullPolicy", "always", "one of"),
    ("pull secret as text", "imagePullSecrets", ["registry"], "want object"),
    ("bad name of the keys' Secret", "keys.existingSecret", "Keys", "pattern"),
    ("bad name of an entry", "keys.entries", {"engine": "a/b"}, "pattern"),
    ("tick of no time", "sidecar.tickSeconds", 0, "exclusiveMinimum"),
    ("tick as text", "manager.tickSeconds", "2s", "want number"),
    ("unknown account", "serviceAccount.names", {"sidecar": "a"}, NOT_ALLOWED),
    ("unknown kind of Service", "service.type", "ExternalName", "one of"),
    ("port beyond the last", "service.port", 65536, "maximum"),
    ("Ingress without a host", "ingress.enabled", True, "minItems"),
    ("host without paths", "ingress.hosts", [{"host": "a"}], "missing property 'paths'"),
    (
        "path that is none", "ingress.hosts",
        [{"host": "a", "paths": [{"path": "x", "pathType": "Exact"}]}], "pattern",
    ),
    ("client that is everybody", "networkPolicy.clients", [{}], "minProperties"),
    ("unknown kind of client", "networkPolicy.clients", [{"pods": {}}], NOT_ALLOWED),
    ("interval without a unit", "monitoring.podMonitor.interval", "30", "pattern"),
    ("half of a key", "monitoring.podMonitor.keySecret", {"name": "a"}, "missing property 'key'"),
    ("name of objects in upper case", "fullnameOverride", "Vectors", "pattern"),
    ("name of objects with a digit first", "fullnameOverride", "1a", "pattern"),
    ("name of objects too long", "fullnameOverride", "a" * 41, "maxLength"),
]  # fmt: skip


def nested(path: str, value: object) -> dict[str, Any]:
    """`a.b` and a value as a mapping."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def levels(values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Each mapping of `values.yaml`, the outermost first."""
    yield path
    for key, value in values.items():
        below = f"{path}.{key}".strip(".")
        if isinstance(value, dict) and value and below not in FREE:
            yield from levels(value, below)


def setting(flag: Flag) -> dict[str, Any]:
    """Return the schema that the values need for a flag."""
    if flag.annotation is bool:
        return {"type": "boolean"}
    if flag.annotation in TYPES:
        return {"type": TYPES[flag.annotation], "minimum": flag.parameter().annotation.__metadata__[0].min}
    return {"type": "string", "minLength": 1}


@pytest.mark.parametrize(("path", "value", "said"), [pytest.param(*row, id=name) for name, *row in BAD])
def test_a_bad_value_is_refused(helm: Helm, path: str, value: object, said: str) -> None:
    with pytest.raises(HelmFailed, match=f"at '/{re.escape(path.split('.')[0])}.*{said}"):
        helm.render(KEYS | nested(path, value))


@pytest.mark.parametrize("level", list(levels(VALUES)))
def test_an_unknown_key_is_refused_at_every_level(helm: Helm, level: str) -> None:
    with pytest.raises(HelmFailed, match=r"'typo'|/typo"):
        helm.render(nested(f"{level}.typo".strip("."), "x"))


def test_the_chart_of_the_definition_has_nothing_to_set(helm: Helm) -> None:
    with pytest.raises(HelmFailed, match="additional properties 'typo' not allowed"):
        helm.render({"typo": 1}, "crds", CRD_CHART)


def test_the_schema_knows_each_value_and_no_other() -> None:
    def compare(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        assert set(schema["properties"]) == set(values), path
        for key, value in values.items():
            below, place = schema["properties"][key], f"{path}.{key}".strip(".")
            if isinstance(value, dict) and value and "properties" in below and place not in FREE:
                compare(below, value, place)

    compare(SCHEMA, VALUES | {"enabled": True, "global": {}}, "")


def test_the_settings_are_the_flags_of_the_engine() -> None:
    wanted = {flag.option[2:]: setting(flag) for flag in FLAGS if flag.option not in OWN_FLAGS}
    assert SCHEMA["properties"]["engine"]["properties"]["settings"]["properties"] == wanted


@pytest.mark.parametrize("case", CASES)
def test_the_engine_understands_what_it_is_started_with(render: Render, case: str) -> None:
    engine = container(render(case).engine_pod, "engine")
    known = {flag.option: flag for flag in FLAGS}
    for argument in engine.get("args", ()):
        option, _, value = argument.partition("=")
        assert (known[option].annotation is bool) == (value == ""), argument
    assert {each["name"] for each in engine["env"]} - {"VECSTOW_URL", "TZ", "NODE"} <= {
        flag.variable for flag in known.values()
    }
