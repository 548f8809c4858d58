"""`vecstow keys`: a folder that the engine and the chart take, and keys that are replaced one by one."""

import base64
import hashlib
import json
import stat

import pytest
import yaml

from vecstow_engine.api.access import Role
from vecstow_engine.api.key_file import KeyFile

NAMES = ["sidecar", "manager", "test", "admin"]


@pytest.fixture
def keys(vecstow, tmp_path):
    """Run `vecstow keys` on one folder, below one that is not there yet."""

    def run(*arguments):
        return vecstow("keys", *arguments, "--folder", folder)

    run.folder = folder = tmp_path / "secrets" / "keys"
    return run


def key_of(keys, name):
    return (keys.folder / name).read_text()


def let_in(keys, key):
    """The name of the key, as an engine finds it that reads the file."""
    found = KeyFile(keys.folder / "keys.yaml").ring.find(key.encode())
    return found and found.name


def snapshot(keys):
    return {path.name: path.read_bytes() for path in keys.folder.iterdir()}


def test_init_makes_a_key_for_each_program_that_the_engine_takes(keys):
    assert keys("init", "--user", "app=write:app-*,docs", "--user", "search=read")[0] == 0
    ring = KeyFile(keys.folder / "keys.yaml").ring
    assert {key.name: (key.role, key.patterns) for key in ring.keys} == {
        "sidecar": (Role.SIDECAR, ()), "manager": (Role.MONITOR, ()), "admin": (Role.ADMIN, ()),
        "test": (Role.WRITE, ("vecstow-test-*",)),
        "app": (Role.WRITE, ("app-*", "docs")), "search": (Role.READ, ()),
    }  # fmt: skip
    for name in [*NAMES, "app", "search"]:
        assert let_in(keys, key_of(keys, name)) == name
    assert len({key_of(keys, name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", ["keys.yaml.tmp", "admin.tmp", "admin.old"])
def test_key_has_no_name_that_another_file_or_key_gets(keys, name):
    code, _, err = keys("init", "--user", f"{name}=read")
    assert (code, keys.folder.exists()) == (1, False)
    assert err.startswith(f"vecstow: a key cannot be called {name!r}: ")
    keys("init")
    before = snapshot(keys)
    assert keys("add", f"{name}=read")[0] == 1
    assert snapshot(keys) == before


def test_file_that_a_crash_left_without_an_entry_is_to_be_moved_away(keys):
    keys("init")
    (keys.folder / "app").write_text("x")
    code, _, err = keys("add", "app=read")
    assert code == 1
    assert err.endswith(
        "hint: keys.yaml has no key of that name: move the file away, then make the key again\n"
    )


def test_nobody_else_may_read_what_init_makes(keys):
    keys("init")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in keys.folder.iterdir()}
    assert (modes, stat.S_IMODE(keys.folder.stat().st_mode)) == ({0o600}, 0o700)


def test_no_key_is_printed_but_in_the_secret(keys):
    printed = [keys("init")[1:], keys("rotate", "admin")[1:], keys("ls")[1:], keys("ls", "--json")[1:]]
    for name in NAMES:
        assert key_of(keys, name) not in str(printed)


@pytest.mark.parametrize("there", ["keys.yaml", "manager"])
def test_init_overwrites_nothing(keys, there):
    keys.folder.mkdir(parents=True)
    (keys.folder / there).write_text("mine")
    code, _, err = keys("init")
    assert (code, snapshot(keys)) == (1, {there: b"mine"})
    assert f"{keys.folder / there} exists already" in err


@pytest.mark.parametrize(
    ("user", "message"),
    [
        pytest.param("app", "'app' is no NAME=ROLE or NAME=ROLE:PATTERN,PATTERN", id="no role"),
        pytest.param("app=king", "role 'king' must be one of admin, write", id="unknown role"),
        pytest.param("../app=read", "name '../app' must be 1 to 63 of", id="name that is a path"),
        pytest.param("keys.yaml=read", "a key cannot be called 'keys.yaml'", id="name of the list"),
        pytest.param("test=read", "has the same name as", id="name of another"),
        pytest.param("app=monitor:a", "collections is only for the roles", id="pattern for no collection"),
        pytest.param("app=read:a b", "collections 'a b' must each be", id="pattern of no name"),
    ],
)
def test_a_key_that_the_engine_would_refuse_is_not_made(keys, user, message):
    code, _, err = keys("init", "--user", user)
    assert code == 1
    assert message in err
    assert not keys.folder.exists()


def test_add_makes_one_more_key_and_leaves_the_others(keys):
    assert keys("init")[0] == 0
    before = snapshot(keys)
    assert "vecstow keys add" in keys("init")[2]
    code, out, _ = keys("add", "app=write:app-*,docs", "search=read")
    assert code == 0
    assert f"{keys.folder / 'app'}" in out
    after = snapshot(keys)
    assert {name: after[name] for name in NAMES} == {name: before[name] for name in NAMES}
    assert [let_in(keys, key_of(keys, name)) for name in [*NAMES, "app", "search"]] == [
        *NAMES,
        "app",
        "search",
    ]
    ring = KeyFile(keys.folder / "keys.yaml").ring
    assert {key.name: key.patterns for key in ring.keys}["app"] == ("app-*", "docs")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        pytest.param(["app=read", "admin=read"], "admin exists already", id="a key that is there"),
        pytest.param(["app=read", "mine=read"], "mine exists already", id="a file that is there"),
        pytest.param(["app=read", "app=write"], "has the same name as", id="one name twice"),
        pytest.param(["app=king"], "role 'king' must be one of", id="unknown role"),
    ],
)
def test_add_overwrites_nothing(keys, wanted, message):
    keys("init")
    (keys.folder / "mine").write_text("mine")
    before = snapshot(keys)
    code, _, err = keys("add", *wanted)
    assert (code, snapshot(keys)) == (1, before)
    assert message in err


def test_add_needs_the_list_of_init(keys):
    code, _, err = keys("add", "app=read")
    assert (code, keys.folder.exists()) == (1, False)
    assert "keys.yaml cannot be read" in err


def test_rotate_lets_both_keys_in_until_retire(keys):
    keys("init", "--user", "app=write:app-*")
    old = key_of(keys, "app")
    assert keys("rotate", "app")[0] == 0
    new = key_of(keys, "app")
    assert (let_in(keys, new), let_in(keys, old)) == ("app", "app.old")
    ring = KeyFile(keys.folder / "keys.yaml").ring
    assert [(key.role, key.patterns) for key in ring.keys if key.name.startswith("app")] == [
        (Role.WRITE, ("app-*",))
    ] * 2
    assert keys("retire", "app")[0] == 0
    assert (let_in(keys, new), let_in(keys, old)) == ("app", None)


def test_a_second_rotation_waits_for_the_first(keys):
    keys("init")
    keys("rotate", "admin")
    before = snapshot(keys)
    code, _, err = keys("rotate", "admin")
    assert code == 1
    assert "has 'admin.old': the key before is let in still" in err
    assert "vecstow keys retire admin" in err
    assert snapshot(keys) == before


@pytest.mark.parametrize("command", ["rotate", "retire"])
def test_a_key_that_is_not_there_is_named(keys, command):
    keys("init")
    before = snapshot(keys)
    code, _, err = keys(command, "nobody")
    assert (code, snapshot(keys)) == (1, before)
    assert "has no key 'nobody" in err


def test_rotate_keeps_what_a_person_wrote(keys):
    """A file made by hand: as JSON, with a key in clear, and fields in another order."""
    keys.folder.mkdir(parents=True)
    clear = "5f0c7d1e9b2a4c6d8e3f"
    entries = [{"key": clear, "role": "read", "name": "app", "collections": ["*"]}]
    (keys.folder / "keys.yaml").write_text(json.dumps({"keys": entries}))
    keys("rotate", "app")
    assert (let_in(keys, key_of(keys, "app")), let_in(keys, clear)) == ("app", "app.old")


def test_a_list_that_the_engine_refuses_is_left_as_it_is(keys):
    keys("init")
    (keys.folder / "keys.yaml").write_text("keys:\n- {name: app, role: read}\n")
    before = snapshot(keys)
    code, _, err = keys("rotate", "app")
    assert (code, snapshot(keys)) == (1, before)
    assert "entry 1 (line 2, app)" in err or "must have either key or sha256" in err


@pytest.mark.parametrize("command", [["init"], ["ls"], ["rotate", "manager"], ["retire", "manager"]])
def test_the_secret_has_what_the_chart_takes(keys, command):
    if command != ["init"]:
        keys("init")
    if command[0] == "retire":
        keys("rotate", "manager")
    code, out, _ = keys(*command, "-o", "yaml", "--name", "mine", "--namespace", "search")
    secret = yaml.safe_load(out)
    assert (code, secret["kind"]) == (0, "Secret")
    assert secret["metadata"] == {"name": "mine", "namespace": "search"}
    data = {name: base64.b64decode(content) for name, content in secret["data"].items()}
    assert data == {name: snapshot(keys)[name] for name in ("keys.yaml", "sidecar", "manager", "test")}
    assert hashlib.sha256(data["manager"]).hexdigest().encode() in data["keys.yaml"]


def test_a_secret_that_would_lose_a_key_is_not_printed(keys):
    keys("init")
    (keys.folder / "manager").unlink()
    code, out, err = keys("ls", "-o", "yaml")
    assert (code, out) == (1, "")
    assert f"{keys.folder / 'manager'} cannot be read: No such file" in err


def test_ls_shows_who_may_do_what(keys):
    keys("init")
    keys("rotate", "test")
    rows = [line.split() for line in keys("ls")[1].splitlines()]
    assert rows[0] == ["name", "role", "collections"]
    assert rows[3:5] == [["test", "write", "vecstow-test-*"], ["test.old", "write", "vecstow-test-*"]]
    assert [entry["name"] for entry in json.loads(keys("ls", "--json")[1])][2:4] == ["test", "test.old"]


@pytest.mark.parametrize("command", ["init", "rotate", "retire", "ls"])
def test_every_command_teaches_with_an_example(vecstow, command):
    code, out, _ = vecstow("keys", command, "--help")
    assert code == 0
    assert f"    vecstow keys {command}" in out
