"""How a memory limit is found, read and divided."""

from __future__ import annotations

from pathlib import Path

import pytest

from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.service.engine import Engine
from vecstow_engine.service.memory_plan import (
    GIB,
    LIMIT_BYTES_MIN,
    MIB,
    granted_bytes,
    parse_size,
    plan,
    plan_for,
)
from vecstow_engine.service.settings import Settings

MACHINE_BYTES = 8 * GIB
V2_MOUNT = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "31 20 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"
V1_CPU_MOUNT = "32 20 0:28 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu"


def kernel(root: Path, groups: str, mounts: list[str], limits: dict[str, str]) -> Path:
    """A root folder whose /proc and /sys say this."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal:       {MACHINE_BYTES // 1024} kB\nMemFree: 1 kB\n")
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text("\n".join(mounts) + "\n")
    for path, text in limits.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "mounts", "limits", "granted"),
    [
        pytest.param(
            "0::/a/b\n", [V2_MOUNT], {"a/b/memory.max": str(GIB)}, GIB,
            id="v2 group of its own",
        ),
        pytest.param(
            "0::/a/b\n", [V2_MOUNT], {"a/b/memory.max": "max", "a/memory.max": str(2 * GIB)}, 2 * GIB,
            id="v2 ancestor",
        ),
        pytest.param(
            "0::/a/b\n", [V2_MOUNT], {"a/b/memory.max": str(3 * GIB), "a/memory.max": str(2 * GIB)}, 2 * GIB,
            id="v2 least of both",
        ),
        pytest.param("0::/a\n", [V2_MOUNT], {"a/memory.max": "max"}, MACHINE_BYTES, id="v2 max"),
        pytest.param(
            "0::/\n", [V2_MOUNT], {"memory.max": str(GIB)}, GIB, id="v2 inside a namespace",
        ),
        pytest.param(
            "0::/../other\n", [V2_MOUNT], {"memory.max": str(GIB)}, GIB, id="v2 outside of the namespace",
        ),
        pytest.param(
            "4:memory:/pod/c\n3:cpu:/x\n", [V1_CPU_MOUNT, V1_MOUNT],
            {"memory/pod/c/memory.limit_in_bytes": str(GIB), "cpu/x/memory.limit_in_bytes": "1"}, GIB,
            id="v1 group of its own",
        ),
        pytest.param(
            "4:memory:/pod/c\n", [V1_MOUNT],
            {
                "memory/pod/c/memory.limit_in_bytes": "9223372036854771712",
                "memory/pod/memory.limit_in_bytes": str(2 * GIB),
            },
            2 * GIB, id="v1 huge means none, ancestor",
        ),
        pytest.param(
            "4:memory:/pod/c\n", ["31 20 0:27 /pod/c /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"],
            {"memory/memory.limit_in_bytes": str(GIB)}, GIB, id="v1 group as the mount's root",
        ),
        pytest.param(
            "4:memory:/a\n0::/\n",
            [V1_MOUNT, "30 20 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"],
            {"memory/a/memory.limit_in_bytes": str(GIB)}, GIB, id="both hierarchies",
        ),
        pytest.param("", [], {}, MACHINE_BYTES, id="no control groups"),
    ],
)  # fmt: skip
def test_the_kernel_grants_the_least_limit(
    tmp_path: Path, groups: str, mounts: list[str], limits: dict[str, str], granted: int
) -> None:
    assert granted_bytes(kernel(tmp_path, groups, mounts, limits)) == granted


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1073741824", GIB), ("1GiB", GIB), ("1Gi", GIB), ("512Mi", 512 * MIB), ("512 MiB", 512 * MIB),
        ("1.5gib", 3 * GIB // 2), ("2G", 2 * 10**9), ("300mb", 300 * 10**6), ("64k", 64_000),
        ("1Ti", 1024 * GIB),
    ],
)  # fmt: skip
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert parse_size("memory_limit", text) == size


@pytest.mark.parametrize("text", ["", "1 XiB", "GiB", "-1", "1e9", "nan", "inf", "1GiB2", "0x10"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="memory_limit is"):
        parse_size("memory_limit", text)


@pytest.mark.parametrize("limit", [LIMIT_BYTES_MIN, 512 * MIB, GIB, 2 * GIB, 24 * GIB, 1024 * GIB])
def test_the_parts_add_up_to_the_limit_and_leave_room_for_data(limit: int) -> None:
    made = plan(limit)
    parts = made.base_bytes + made.request_bytes + made.change_bytes + made.work_bytes + made.data_bytes
    assert parts == limit
    assert made.data_bytes >= limit // 5


def test_a_larger_limit_makes_no_part_smaller() -> None:
    plans = [plan(mib * MIB) for mib in range(256, 20_000, 64)]
    for part in ("request_bytes", "change_bytes", "work_bytes", "data_bytes"):
        sizes = [getattr(made, part) for made in plans]
        assert sizes == sorted(sizes)


def test_a_limit_below_the_minimum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"memory_limit is 104857600 bytes.*at least 268435456"):
        Engine(Settings(data=tmp_path, memory_limit="100Mi"))


def test_the_default_is_what_the_kernel_grants() -> None:
    assert plan_for("").limit_bytes == granted_bytes()
