"""The file of API keys: what it may say, what is said of a bad one, and how a changed one is taken."""

from __future__ import annotations

import hashlib
import hmac
import io
import itertools
import json
import logging
import os

import pytest
import structlog
from structlog.testing import capture_logs

from tests.unit.asgi_client import docs_service
from vecstow_engine.api import key_file as key_file_module
from vecstow_engine.api.access import KEY_CHARACTERS_MAX, Role
from vecstow_engine.api.key_file import FILE_BYTES_MAX, KEYS_MAX, PATTERNS_MAX, KeyFile, parse_keys
from vecstow_engine.api.logs import configure_logging
from vecstow_engine.model.errors import InvalidInput

SECRET = "5f0c7d1e9b2a4c6d8e3f"
OTHER = "another-key-of-somebody"
VERSIONS = itertools.count()
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def file_of(*entries: dict[str, object]) -> bytes:
    return json.dumps({"keys": entries}).encode()


def entry(name: str = "app", role: str = "read", key: str = SECRET, **fields: object) -> dict[str, object]:
    return {"name": name, "role": role, "key": key} | fields


def test_yaml_and_json_say_the_same():
    text = f"keys:\n- name: app\n  role: write\n  collections: [docs, 'a-*']\n  key: {SECRET}\n"
    for raw in (text.encode(), file_of(entry(role="write", collections=["docs", "a-*"]))):
        [key] = parse_keys(raw, "f").keys
        assert (key.name, key.role, key.patterns) == ("app", Role.WRITE, ("docs", "a-*"))
        assert key.digest.hex() == DIGEST


def test_a_digest_stands_for_its_key():
    ring = parse_keys(file_of({"name": "app", "role": "read", "sha256": DIGEST}), "f")
    assert ring.find(SECRET.encode()).name == "app"
    assert ring.find(DIGEST.encode()) is None


def test_a_key_that_looks_like_a_number_is_taken_as_it_stands():
    ring = parse_keys(b"keys: [{name: a, role: read, key: 01234567890123456}]", "f")
    assert ring.find(b"01234567890123456") is not None


def test_each_key_is_found_and_no_other():
    ring = parse_keys(file_of(entry(), entry("other", "admin", OTHER)), "f")
    assert [ring.find(key.encode()).name for key in (SECRET, OTHER)] == ["app", "other"]
    for wrong in (b"", SECRET[:-1].encode(), SECRET.encode() + b" ", b"x" * 100_000, "ключ".encode()):
        assert ring.find(wrong) is None


def test_every_key_is_compared_whichever_is_the_right_one(monkeypatch):
    """The first and the last take the same way, as does none of them."""
    ring = parse_keys(file_of(*(entry(f"k{n}", key=f"{SECRET}-{n}") for n in range(5))), "f")
    compared = []

    def counted(one, other):
        compared.append(len(one) == len(other) == 32)
        return hmac_compare(one, other)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", counted)
    for presented in (f"{SECRET}-0", f"{SECRET}-4", "nobody's"):
        compared.clear()
        ring.find(presented.encode())
        assert compared == [True] * 5


@pytest.mark.parametrize(
    ("patterns", "own", "others"),
    [
        pytest.param(["docs"], ["docs"], ["docs2", "Docs", "a-docs", "docs\n"], id="a name"),
        pytest.param(["a-*"], ["a-", "a-b", "a-b-c"], ["a", "b-a-"], id="a star"),
        pytest.param(["d?cs", "x"], ["docs", "dacs", "x"], ["dcs", "xx"], id="a question mark, and more"),
        pytest.param(["*"], ["docs"], [], id="any"),
    ],
)
def test_patterns_are_those_of_a_shell(patterns, own, others):
    [key] = parse_keys(file_of(entry(collections=patterns)), "f").keys
    assert [name for name in own + others if key.reaches(name)] == own


def test_a_pattern_of_many_stars_is_soon_answered():
    """A pattern that goes back for each star would not come to an end here."""
    [key] = parse_keys(file_of(entry(collections=["*a" * 31 + "*b"])), "f").keys
    assert key.reaches("a" * 63 + "c") is False


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"\xff", "it is not UTF-8 at byte 0", id="bytes"),
        pytest.param(b"keys: [", "it is no valid YAML at line 1, column 8", id="no YAML"),
        pytest.param(b"[" * 5000, "it is no valid YAML", id="deep"),
        pytest.param(b"a: 1\n---\nb: 2", "it is no valid YAML", id="two documents"),
        pytest.param(b"#" * (FILE_BYTES_MAX + 1), "more than 131072 bytes", id="large"),
        pytest.param(b"[]", "it must be a mapping", id="a list"),
        pytest.param(b"{}", "it has an unknown field|it has no keys", id="without keys"),
        pytest.param(b"keys: 7", "keys must be a list", id="no list"),
        pytest.param(b"keys: []", "keys has 0 items; 1 to 256 are allowed", id="no key"),
        pytest.param(
            file_of(*[entry()] * (KEYS_MAX + 1)), "keys has 257 items; 1 to 256 are allowed", id="too many"
        ),
        pytest.param(b"keys: [abc]", r"entry 1 \(line 1\) must be a mapping", id="an entry that is none"),
        pytest.param(file_of(entry(roel="read")), "entry 1 .* unknown field 'roel'; known: name", id="field"),
        pytest.param(b"keys:\n- {name: a, name: b}", r"entry 1 \(line 2\): name stands twice", id="twice"),
        pytest.param(file_of({"role": "read"}), "entry 1 .* has no name", id="no name"),
        pytest.param(file_of(entry("")), "entry 1 .*: name '' must be 1 to 63 of", id="empty name"),
        pytest.param(file_of(entry("a b")), "entry 1 .*: name 'a b' must be", id="a name with a space"),
        pytest.param(file_of(entry("a\n")), "entry 1 .*: name 'a.n' must be", id="a name with a newline"),
        pytest.param(file_of({"name": "a"}), r"entry 1 \(line 1, a\) has no role", id="no role"),
        pytest.param(
            file_of(entry(role="root")), "role 'root' must be one of admin, write, read", id="unknown role"
        ),
        pytest.param(file_of(entry(role="Read")), "role 'Read' must be one of", id="a role in capitals"),
        pytest.param(
            file_of({"name": "a", "role": "read"}), "must have either key or sha256", id="without a key"
        ),
        pytest.param(file_of(entry(sha256=DIGEST)), "must have either key or sha256", id="with both"),
        pytest.param(file_of(entry(key="short")), "key must be 16 to 256 printable", id="short"),
        pytest.param(file_of(entry(key="x" * (KEY_CHARACTERS_MAX + 1))), "key must be 16 to", id="long"),
        pytest.param(file_of(entry(key="with a space inside")), "key must be 16 to", id="a space"),
        pytest.param(file_of(entry(key=SECRET + "\n")), "key must be 16 to", id="a newline"),
        pytest.param(file_of(entry(key=f"sha256:{DIGEST}")), "belongs into the field sha256", id="prefixed"),
        pytest.param(
            file_of({"name": "a", "role": "read", "sha256": DIGEST[1:]}), "64 hexadecimal digits", id="digest"
        ),
        pytest.param(file_of(entry(collections="docs")), "collections must be a list", id="no patterns"),
        pytest.param(file_of(entry(collections=[])), "collections has 0 items", id="an empty list"),
        pytest.param(
            file_of(entry(collections=["a"] * (PATTERNS_MAX + 1))), "collections has 65 items", id="patterns"
        ),
        pytest.param(file_of(entry(collections=["[a]"])), r"collections '\[a\]' must each be", id="a set"),
        pytest.param(file_of(entry(collections=[["a"]])), "collections must be a string", id="nested"),
        pytest.param(
            file_of(entry(role="sidecar", collections=["a"])),
            "collections is only for the roles admin, write, read",
            id="a sidecar of some",
        ),
        pytest.param(
            file_of(entry("a"), entry("a", key=OTHER)),
            r"entry 2 \(a\) has the same name as entry 1 \(a\)",
            id="name twice",
        ),
        pytest.param(
            file_of(entry("a"), {"name": "b", "role": "admin", "sha256": DIGEST}),
            r"entry 2 \(b\) has the same key as entry 1 \(a\)",
            id="key twice",
        ),
    ],
)
def test_a_bad_file_is_refused_by_its_place(raw, message):
    with pytest.raises(InvalidInput, match=f"^keys file /etc/keys.yaml: .*({message})"):
        parse_keys(raw, "/etc/keys.yaml")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("keys: [{name: a, role: read, key: *SECRET}]", id="an alias"),
        pytest.param("keys: [{name: a, role: read, key: !SECRET x}]", id="a tag"),
        pytest.param("keys: [{name: a, role: read, key: !e!SECRET x}]", id="a tag's handle"),
        pytest.param("keys: [{name: a, role: read, key: 'SECRET}]", id="a quote that is open"),
        pytest.param("keys: [{name: a, role: read, key: SECRET]", id="a brace that is open"),
        pytest.param("%SECRET\nkeys: []", id="a directive"),
        pytest.param("keys: [{name: a, role: SECRET, key: x}]", id="as the role"),
        pytest.param("keys: [{name: 'SECRET !', role: read, key: x}]", id="as the name"),
        pytest.param("keys: [{name: SECRET, role: no, key: x}]", id="as a name that could be one"),
        pytest.param("keys: [{SECRET: read}]", id="as a field"),
        pytest.param("keys: [{name: a, role: read, sha256: SECRET}]", id="as the digest"),
        pytest.param("keys: [{name: a, role: read, key: 'SECRET '}]", id="with a space"),
        pytest.param("keys: [{name: a, role: read, collections: ['SECRET.']}]", id="as a collection"),
        pytest.param("keys: [SECRET]", id="as an entry"),
        pytest.param("SECRET: 1", id="as the top"),
        pytest.param("SECRET", id="alone"),
    ],
)
def test_what_is_said_of_a_bad_file_never_quotes_a_key(text, tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text(text.replace("SECRET", SECRET))
    with pytest.raises(InvalidInput) as refused:
        KeyFile(file)
    error = refused.value
    assert SECRET not in error.message
    assert SECRET not in repr((error.hint, error.details))
    assert error.__cause__ is None or SECRET not in repr(error.__cause__)


def test_a_key_shows_no_digest_of_itself():
    [key] = parse_keys(file_of(entry()), "f").keys
    assert DIGEST not in repr(key)
    assert repr(key.digest) not in repr(key)


# A file that changes


def mounted(folder, content: bytes) -> None:
    """Write a Secret as kubelet does: a new folder, then one link to it swapped."""
    version = folder / f"..{next(VERSIONS)}"
    version.mkdir()
    (version / "keys.yaml").write_bytes(content)
    (folder / "..next").symlink_to(version.name)
    os.replace(folder / "..next", folder / "..data")
    if not (folder / "keys.yaml").is_symlink():
        (folder / "keys.yaml").symlink_to("..data/keys.yaml")


@pytest.fixture
def secret(tmp_path):
    folder = tmp_path / "secret"
    folder.mkdir()
    mounted(folder, file_of(entry()))
    return folder


def names(keys: KeyFile) -> list[str]:
    return [key.name for key in keys.ring.keys]


def look_twice(keys: KeyFile) -> None:
    keys.look()
    keys.look()


def test_a_mounted_secret_that_is_swapped_is_read_again(secret):
    keys = KeyFile(secret / "keys.yaml")
    mounted(secret, file_of(entry("new", key=OTHER)))
    look_twice(keys)
    assert names(keys) == ["new"]
    assert keys.ring.find(SECRET.encode()) is None


def test_a_file_of_the_same_size_and_time_is_read_again(tmp_path):
    """Nothing rests on what stat says."""
    file = tmp_path / "keys.yaml"
    file.write_bytes(file_of(entry("one")))
    keys = KeyFile(file)
    before = file.stat()
    file.write_bytes(file_of(entry("two")))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    look_twice(keys)
    assert names(keys) == ["two"]


def test_a_file_that_is_half_written_is_waited_for(tmp_path):
    """Cut at the wrong place, an entry without its `collections` is a key for everything."""
    file = tmp_path / "keys.yaml"
    whole = f"keys:\n- name: one\n  role: read\n  key: {SECRET}\n  collections: [docs]\n"
    file.write_text(whole.replace("one", "old"))
    keys = KeyFile(file)
    file.write_text(whole[: whole.index("  collections")])
    keys.look()
    assert names(keys) == ["old"]
    file.write_text(whole)
    keys.look()
    assert names(keys) == ["old"]
    keys.look()
    assert keys.ring.keys[0].patterns == ("docs",)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda secret: mounted(secret, b"keys: []"), id="wrong"),
        pytest.param(lambda secret: mounted(secret, b""), id="empty"),
        pytest.param(lambda secret: (secret / "keys.yaml").unlink(), id="gone"),
        pytest.param(lambda secret: mounted(secret, b"#" * (FILE_BYTES_MAX + 1)), id="large"),
    ],
)
async def test_a_file_that_went_bad_leaves_the_keys_in_force_and_says_so_once(secret, spoil):
    keys = KeyFile(secret / "keys.yaml")
    client, _ = docs_service(keys=keys)
    headers = {"api-key": SECRET}

    async def metric(name: str) -> float:
        text = (await client.call("GET", "/metrics", headers=headers)).body.decode()
        [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])

    assert await metric("vecstow_keys_last_reload_successful") == 1
    spoil(secret)
    with capture_logs() as lines:
        for _ in range(5):
            keys.look()
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("keys cannot be read again, those before stay in force", "error")
    ]
    assert str(secret / "keys.yaml") in lines[0]["reason"]
    assert (await client.call("GET", "/collections", headers=headers)).status == 200
    assert await metric("vecstow_keys_last_reload_successful") == 0
    assert await metric("vecstow_keys") == 1

    (secret / "keys.yaml").unlink(missing_ok=True)
    mounted(secret, file_of(entry(), entry("new", "admin", OTHER)))
    with capture_logs() as lines:
        for _ in range(5):
            keys.look()
    assert [line["event"] for line in lines] == ["keys are read again"]
    assert SECRET not in repr(lines)
    assert await metric("vecstow_keys_last_reload_successful") == 1
    assert await metric("vecstow_keys") == 2


def test_a_file_that_comes_back_as_it_was_is_good_again(secret):
    keys = KeyFile(secret / "keys.yaml")
    os.rename(secret / "..data", secret / "..away")
    keys.look()
    assert not keys.is_sound
    os.rename(secret / "..away", secret / "..data")
    look_twice(keys)
    assert keys.is_sound


def test_a_folder_instead_of_a_file_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="is no file") as refused:
        KeyFile(tmp_path)
    assert refused.value.hint == "name the file in the folder"


async def test_a_key_that_was_taken_out_is_refused_from_then_on(secret):
    keys = KeyFile(secret / "keys.yaml")
    client, _ = docs_service(keys=keys)
    assert (await client.call("GET", "/collections", headers={"api-key": SECRET})).status == 200
    mounted(secret, file_of(entry("new", key=OTHER)))
    look_twice(keys)
    assert (await client.call("GET", "/collections", headers={"api-key": SECRET})).status == 401
    assert (await client.call("GET", "/collections", headers={"api-key": OTHER})).status == 200


async def test_the_application_follows_the_file_while_it_lives(secret, monkeypatch):
    import asyncio

    monkeypatch.setattr(key_file_module, "LOOK_SECONDS", 0.001)
    keys = KeyFile(secret / "keys.yaml")
    client, _ = docs_service(keys=keys)
    events = asyncio.Queue()
    events.put_nowait({"type": "lifespan.startup"})
    started = asyncio.Event()

    async def send(message):
        started.set()

    life = asyncio.create_task(client.app({"type": "lifespan"}, events.get, send))
    await started.wait()
    mounted(secret, file_of(entry("new", key=OTHER)))
    async with asyncio.timeout(20):
        while names(keys) != ["new"]:
            await asyncio.sleep(0.001)
    events.put_nowait({"type": "lifespan.shutdown"})
    await life
    mounted(secret, file_of(entry()))
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if "KeyFile" in task.get_coro().__qualname__] == []


async def test_a_traceback_in_the_log_shows_no_variables():
    """Headers are among them, and what users store."""

    def fail(name):
        brought = f"Bearer {SECRET}"
        raise RuntimeError(len(brought))

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        configure_logging("json", "info", stream)
        client, engine = docs_service()
        engine.describe = fail
        reply = await client.call("GET", "/collections/docs")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert reply.status == 500
    assert "RuntimeError" in stream.getvalue()
    assert SECRET not in stream.getvalue()
