"""The resource's definition says what the manifest's modules say: neither can change alone."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from tests.unit.declared import HAD, OTHER_UID, claim, engine_of, pod, state_of
from vecstow_engine.model.aliases import ALIASES_OF_RESOURCE_MAX
from vecstow_engine.model.errors import InvalidInput, WrongShape
from vecstow_engine.model.manifest import (
    DIMENSION_MAX,
    INDEX_BOUNDS,
    OWNER_CHARACTERS_MAX,
    PAYLOAD_FIELD_CHARACTERS_MAX,
    PAYLOAD_INDEX_TYPES,
    PAYLOAD_INDEXES_MAX,
    IndexConfig,
)
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.names import COLLECTION_PATTERN, RESERVED_NAMES, is_collection_name
from vecstow_engine.model.resource import (
    API_VERSION,
    ENGINE_DEFAULT,
    INDEX_FIELDS,
    KIND,
    METADATA_NAME_CHARACTERS_MAX,
    DeletionPolicy,
    parse_resource,
)
from vecstow_operator.manager.assessment import assess
from vecstow_operator.manager.status import MESSAGE_CHARACTERS_MAX, build
from vecstow_operator.vocabulary import GROUP, PLURAL, VERSION, Condition, Reason

REPOSITORY = Path(__file__).parents[3]
DEFINITION = yaml.safe_load((REPOSITORY / "crds" / "vecstow.dev_vectorcollections.yaml").read_text())
CHARTS = REPOSITORY / "charts"
[SERVED_VERSION] = DEFINITION["spec"]["versions"]
ROOT = SERVED_VERSION["schema"]["openAPIV3Schema"]
SPEC = ROOT["properties"]["spec"]
STATUS = ROOT["properties"]["status"]
FIELDS = SPEC["properties"]
INDEX = FIELDS["index"]["properties"]
PAYLOAD = FIELDS["payloadIndexes"]
CONDITION = STATUS["properties"]["conditions"]["items"]["properties"]

NAMES = [
    "", "a", "A", "0", "_", "-", ".", "é", "a-b", "a_b", "a.b", "a b", "a\n", "\na", "a-", "a_", "a.", "-a",
    "a" * 63, "a" * 64, "a" * 65, "A" * 63 + "-", *sorted(RESERVED_NAMES),
]  # fmt: skip
"""Names of all kinds that a pattern might distinguish."""


def document(name="notes", **spec):
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {"dimension": 4, "distanceMetric": "Cosine"} | spec,
    }


def accepts(**values):
    """Whether the module takes the resource."""
    try:
        parse_resource(document(**values))
    except InvalidInput:
        return False
    return True


def matches(pattern, text):
    """As Go's regular expressions do: `$` is the end of the text, never before a newline."""
    return re.search(re.sub(r"\$$", r"\\Z", pattern), text) is not None


def rules(schema):
    return [rule["rule"] for rule in schema.get("x-kubernetes-validations", ())]


def every_field(schema, path=""):
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from every_field(child, f"{path}.{name}")
    if "items" in schema:
        yield from every_field(schema["items"], f"{path}[]")


# Names of it all -------------------------------------------------------------------------------------------


def test_group_version_and_kind_are_those_of_the_modules():
    spec = DEFINITION["spec"]
    assert (spec["group"], spec["names"]["plural"], SERVED_VERSION["name"]) == (GROUP, PLURAL, VERSION)
    assert (f"{GROUP}/{VERSION}", spec["names"]["kind"]) == (API_VERSION, KIND)
    assert DEFINITION["metadata"]["name"] == f"{PLURAL}.{GROUP}"
    assert (spec["names"]["shortNames"], spec["names"]["categories"]) == (["vcol"], ["vecstow"])


def test_status_is_a_subresource_and_the_engine_can_be_selected():
    assert SERVED_VERSION["subresources"] == {"status": {}}
    assert SERVED_VERSION["selectableFields"] == [{"jsonPath": ".spec.engine"}]


def test_module_knows_exactly_the_fields_of_the_spec():
    with pytest.raises(WrongShape) as refused:
        parse_resource(document(unknown=1))
    assert f"known: {', '.join(FIELDS)}" in str(refused.value)
    with pytest.raises(WrongShape) as refused:
        parse_resource(document(payloadIndexes=[{"unknown": 1}]))
    assert f"known: {', '.join(PAYLOAD['items']['properties'])}" in str(refused.value)


def test_what_is_required_is_required_by_both():
    assert (ROOT["required"], SPEC["required"]) == (["spec"], ["dimension", "distanceMetric"])
    for field in FIELDS:
        assert accepts(**{field: None}) is (field not in SPEC["required"])
    assert PAYLOAD["items"]["required"] == ["field", "type"]


# Bounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", INDEX_FIELDS)
def test_bounds_and_default_of_an_index_setting(field):
    key = INDEX_FIELDS[field]
    schema = INDEX[field]
    assert schema["type"] == "integer"
    assert (schema["minimum"], schema["maximum"]) == INDEX_BOUNDS[key]
    assert schema["default"] == getattr(IndexConfig(), key)


def test_index_has_these_settings_alone_and_is_filled_in_when_absent():
    assert list(INDEX) == list(INDEX_FIELDS)
    assert set(INDEX_FIELDS.values()) == {field.name for field in dataclasses.fields(IndexConfig)}
    assert FIELDS["index"]["default"] == {}


def test_bounds_of_the_dimension():
    assert (FIELDS["dimension"]["minimum"], FIELDS["dimension"]["maximum"]) == (1, DIMENSION_MAX)


def test_length_of_the_owner():
    assert FIELDS["owner"]["maxLength"] == OWNER_CHARACTERS_MAX
    assert "minLength" not in FIELDS["owner"]
    assert accepts(owner="")


def test_bounds_of_payload_indexes():
    field = PAYLOAD["items"]["properties"]["field"]
    assert PAYLOAD["maxItems"] == PAYLOAD_INDEXES_MAX
    assert (field["minLength"], field["maxLength"]) == (1, PAYLOAD_FIELD_CHARACTERS_MAX)


def test_bounds_of_aliases():
    assert FIELDS["aliases"]["maxItems"] == ALIASES_OF_RESOURCE_MAX
    assert FIELDS["aliases"]["x-kubernetes-list-type"] == "set"
    assert not accepts(aliases=["a", "a"])


def test_an_alias_is_a_name_that_a_collection_could_have():
    alias, name = FIELDS["aliases"]["items"], FIELDS["collectionName"]
    assert (alias["pattern"], alias["maxLength"]) == (name["pattern"], name["maxLength"])
    assert rules(alias) == [rule for rule in rules(name) if "oldSelf" not in rule]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_alias_is_legal_for_both_or_for_none(name):
    schema = FIELDS["aliases"]["items"]
    is_legal = (
        matches(schema["pattern"], name) and len(name) <= schema["maxLength"] and name not in root_rule()[1]
    )
    assert is_legal is accepts(aliases=[name])


def test_an_alias_with_the_collections_own_name_is_refused_by_both():
    [rule] = [rule for rule in rules(SPEC) if "aliases" in rule]
    assert "self.collectionName in self.aliases" in rule
    assert not accepts(collectionName="own", aliases=["own"])


def test_payload_field_named_twice_is_refused_by_both():
    assert PAYLOAD["x-kubernetes-list-type"] == "map"
    assert PAYLOAD["x-kubernetes-list-map-keys"] == ["field"]
    assert not accepts(payloadIndexes=[{"field": "a", "type": "float"}, {"field": "a", "type": "keyword"}])


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        pytest.param(FIELDS["distanceMetric"], DistanceMetric, id="distanceMetric"),
        pytest.param(FIELDS["vectorType"], VectorType, id="vectorType"),
        pytest.param(FIELDS["deletionPolicy"], DeletionPolicy, id="deletionPolicy"),
        pytest.param(PAYLOAD["items"]["properties"]["type"], PAYLOAD_INDEX_TYPES, id="payloadIndexes.type"),
    ],
)
def test_enumeration(schema, values):
    assert schema["enum"] == [str(value) for value in values]


def test_defaults_are_what_the_module_fills_in():
    parsed = parse_resource(document())
    defaults = {name: schema["default"] for name, schema in FIELDS.items() if "default" in schema}
    assert defaults == {
        "vectorType": parsed.vector_type.value,
        "index": {},
        "engine": parsed.engine,
        "deletionPolicy": parsed.deletion_policy.value,
        "paused": parsed.paused,
    }
    assert parsed.engine == ENGINE_DEFAULT


# Names -----------------------------------------------------------------------------------------------------


def root_rule():
    """Return the root's one rule: the pattern of a name that needs no other, and the names it excludes."""
    [rule] = rules(ROOT)
    shape = re.fullmatch(
        r"has\(self\.spec\.collectionName\) \|\| \(self\.metadata\.name\.matches\('(.*)'\) && "
        r"!\(self\.metadata\.name in (\[.*\])\)\)",
        rule,
    )
    return shape[1], yaml.safe_load(shape[2])


def test_pattern_of_a_collection_name():
    assert FIELDS["collectionName"]["pattern"] == f"^{COLLECTION_PATTERN}$"
    assert FIELDS["collectionName"]["maxLength"] == 64


@pytest.mark.parametrize("field", ["collectionName", "engine"])
def test_pattern_is_told_in_words_too(field):
    """The API server's own words for a name that does not match are the pattern alone."""
    assert f"self.matches('{FIELDS[field]['pattern']}')" in rules(FIELDS[field])


def test_reserved_names_are_refused_in_both_places():
    [rule] = [rule for rule in rules(FIELDS["collectionName"]) if " in " in rule]
    assert set(yaml.safe_load(re.fullmatch(r"!\(self in (\[.*\])\)", rule)[1])) == RESERVED_NAMES
    assert set(root_rule()[1]) == RESERVED_NAMES


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_name_of_the_resource_is_the_collections_when_both_say_so(name):
    """The API server asks for a lower-case RFC 1123 subdomain by itself."""
    pattern, reserved = root_rule()
    is_subdomain = re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name) is not None
    assert (is_subdomain and matches(pattern, name) and name not in reserved) is accepts(name=name)


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_collection_name_is_legal_for_both_or_for_none(name):
    schema = FIELDS["collectionName"]
    is_legal = (
        matches(schema["pattern"], name) and len(name) <= schema["maxLength"] and name not in root_rule()[1]
    )
    assert is_legal is accepts(collectionName=name) is is_collection_name(name)


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_engine_name_is_legal_for_both_or_for_none(name):
    schema = FIELDS["engine"]
    assert (matches(schema["pattern"], name) and len(name) <= schema["maxLength"]) is accepts(engine=name)


def test_resource_may_be_named_as_long_as_kubernetes_allows():
    assert accepts(name="a" * METADATA_NAME_CHARACTERS_MAX, collectionName="a")
    assert not accepts(name="a" * (METADATA_NAME_CHARACTERS_MAX + 1), collectionName="a")
    assert METADATA_NAME_CHARACTERS_MAX == 253


# What never changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_immutable_are_the_shape_the_name_and_the_engine(field):
    is_immutable = field in ("dimension", "distanceMetric", "vectorType", "collectionName", "engine")
    assert ("self == oldSelf" in rules(FIELDS[field])) is is_immutable


def test_immutable_field_without_a_default_can_be_neither_set_nor_removed():
    without = {
        name
        for name, schema in FIELDS.items()
        if "self == oldSelf" in rules(schema) and "default" not in schema and name not in SPEC["required"]
    }
    of_update = [rule for rule in rules(SPEC) if "oldSelf" in rule]
    assert of_update == [f"has(self.{name}) == has(oldSelf.{name})" for name in sorted(without)]


def test_every_rule_says_what_to_do():
    for path, schema in [("", ROOT), *every_field(ROOT)]:
        for rule in schema.get("x-kubernetes-validations", ()):
            assert len(rule["message"]) > 20, path


# Status ----------------------------------------------------------------------------------------------------


def test_status_looks_like_nothing_before_anybody_looked():
    assert STATUS["default"] == {"observedGeneration": -1}
    assert STATUS["properties"]["observedGeneration"]["default"] == -1


def test_every_field_of_a_status_is_declared():
    """The API server answers 500 to one that is not."""
    resource = claim(status=HAD, aliases=["second"])
    repaired = state_of(resource, collection_uid=OTHER_UID, vector_count=2, aliases=("second",))
    status = build(resource, assess(resource, engine_of(pod(repaired))), {}, "2026-01-01T00:00:00Z")
    assert status["loss"].keys() == STATUS["properties"]["loss"]["properties"].keys()
    assert status.keys() == STATUS["properties"].keys()
    [replica] = status["replicas"]
    assert replica.keys() == STATUS["properties"]["replicas"]["items"]["properties"].keys()
    for condition in status["conditions"]:
        assert condition.keys() == CONDITION.keys()
        assert condition["status"] in CONDITION["status"]["enum"]


@pytest.mark.parametrize("reason", Reason)
def test_reason_is_one_that_the_api_server_takes(reason):
    assert matches(CONDITION["reason"]["pattern"], reason)
    assert CONDITION["reason"]["minLength"] <= len(reason) <= CONDITION["reason"]["maxLength"]


def test_conditions_are_listed_in_their_description():
    described = STATUS["properties"]["conditions"]["description"]
    assert described == ", ".join(condition.value for condition in Condition) + "."
    assert all(len(condition) <= CONDITION["type"]["maxLength"] for condition in Condition)


def test_message_that_the_manager_cuts_fits():
    assert CONDITION["message"]["maxLength"] >= MESSAGE_CHARACTERS_MAX


# For people ------------------------------------------------------------------------------------------------


def test_nothing_is_said_of_metadata():
    """The API server describes it, and refuses a definition that does."""
    assert ROOT["properties"]["metadata"] == {"type": "object"}


@pytest.mark.parametrize(
    ("path", "schema"), [pytest.param(p, s, id=p) for p, s in every_field(ROOT) if p != ".metadata"]
)
def test_field_has_a_description(path, schema):
    assert schema.get("description", "").endswith("."), path


@pytest.mark.parametrize(
    ("field", "bounds"),
    [pytest.param(field, INDEX_BOUNDS[key], id=field) for field, key in INDEX_FIELDS.items()]
    + [pytest.param("dimension", (1, DIMENSION_MAX), id="dimension")],
)
def test_description_names_the_bounds(field, bounds):
    text = (INDEX | FIELDS)[field]["description"]
    assert "{} to {}".format(*bounds) in text


@pytest.mark.parametrize(
    ("path", "schema"), [pytest.param(p, s, id=p) for p, s in every_field(SPEC) if s.get("default", {}) != {}]
)
def test_description_names_the_default(path, schema):
    """`kubectl explain` does not show it elsewhere."""
    default = schema["default"]
    assert f"default {str(default).lower() if default is False else default}" in schema["description"], path


def test_columns_are_of_fields_that_are_there():
    for column in SERVED_VERSION["additionalPrinterColumns"]:
        path = column["jsonPath"].lstrip(".").split(".")
        if path[0] == "metadata":
            continue
        schema = ROOT
        for name in path[:2]:
            schema = schema["properties"][re.sub(r"\[.*", "", name)]
        kind = re.search(r'@\.type=="(\w+)"', column["jsonPath"])
        assert kind is None or kind[1] in set(Condition)


@pytest.mark.parametrize("chart", ["vecstow", "vecstow-crds"])
def test_chart_asks_for_a_kubernetes_that_selects_resources_by_their_engine(chart):
    """On by default from 1.31 on; before, each list of a sidecar is refused."""
    assert SERVED_VERSION["selectableFields"] == [{"jsonPath": ".spec.engine"}]
    written = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    assert written["kubeVersion"] == ">=1.31.0-0"
