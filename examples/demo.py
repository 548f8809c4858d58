"""The main job on real data, in under a minute: declare, fill, ask, kill with SIGKILL, come back, verify.

    make demo

A collection of 10,000 Debian packages is declared in YAML and filled with real embeddings; questions in plain
words are answered. Then the engine is killed while four clients write, and started again on the same volume.
Each client kept a journal of what the engine had acknowledged, and every entry must be there. Only the
command line and REST are used, as any user would. Exit code 0 means that everything held.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from demo_journal import Journal, Point

PACKAGES = Path(__file__).parent / "packages"
VECSTOW = Path(sys.executable).with_name("vecstow")
NAME = "packages"
WRITERS = 4
ACKNOWLEDGED_BEFORE_KILL = 4000
NEIGHBOURS = 10
FILTERED_QUESTIONS = 50
CLIENTS = 8
DISTANCE_ERROR_MAX = 1e-5
RECALL_MIN = 0.95
START_SECONDS_MAX = 30.0

QUESTIONS = (
    "Share mouse, keyboard and clipboard over the network",
    "add an OCR text layer to PDF files",
    "address updating utility for dynamic DNS services",
)
FILTERED_QUESTION = "futuristic real-time strategy game"
FILTER = {"section": "games", "installed_kib": {"$lt": 1000}}
HYBRID_QUESTION = "address updating utility for dynamic DNS services"
HYBRID_TEXT = "adress of dynamic DNS"
"""Words as a person types them, one of them misspelt."""
GROUPED_QUESTION = "Share mouse, keyboard and clipboard over the network"


class DemoFailed(Exception):
    """Raised when something did not hold."""


class Server:
    """`vecstow serve` on one volume, as a process of its own."""

    def __init__(self, data: Path, log: Path) -> None:
        self.data = data
        self.log = log
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when the engine says that it is ready."""
        command = [VECSTOW, "serve", "--data", self.data, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS_MAX
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            while not self._is_ready(client):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise DemoFailed(f"the server did not start; its log is {self.log}")
                time.sleep(0.01)

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    @staticmethod
    def _is_ready(client: httpx.Client) -> bool:
        try:
            return client.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False


class Engine:
    """A client of the engine: REST with MessagePack bodies, vectors as raw float32."""

    def __init__(self, url: str) -> None:
        packed = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
        self._http = httpx.Client(
            base_url=f"{url}/collections/{NAME}", headers=packed, timeout=60, trust_env=False
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upsert(self, points: dict[str, Point]) -> None:
        vectors = np.stack([vector for vector, _ in points.values()]).astype("<f4")
        payloads = [payload for _, payload in points.values()]
        self._post(
            "/vectors/batch", {"ids": list(points), "vectors": vectors.tobytes(), "metadata": payloads}
        )

    def delete(self, ids: list[str]) -> None:
        self._post("/vectors/delete", {"ids": ids})

    def get(self, ids: list[str]) -> dict[str, Point | None]:
        found: dict[str, Point | None] = {}
        for start in range(0, len(ids), 1000):
            part = ids[start : start + 1000]
            for point_id, point in zip(part, self._post("/vectors/get", {"ids": part}), strict=True):
                found[point_id] = point and (np.frombuffer(point["data"], "<f4"), point["metadata"])
        return found

    def search(
        self, vector: np.ndarray, wanted: dict[str, Any] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        query = {"vector": vector.astype("<f4").tobytes(), "limit": NEIGHBOURS, "filter": wanted}
        return self._post("/search", query | options)

    def groups(self, vector: np.ndarray, field: str, limit: int) -> list[dict[str, Any]]:
        query = {"vector": vector.astype("<f4").tobytes(), "group_by": field, "limit": limit}
        return self._post("/search/groups", query)["groups"]

    def _post(self, path: str, document: object) -> Any:
        answer = self._http.post(path, content=msgspec.msgpack.encode(document))
        envelope = msgspec.msgpack.decode(answer.content)
        if not envelope["success"]:
            raise DemoFailed(f"{path}: {envelope['error']}")
        return envelope["data"]


class Demo:
    """The steps, in their order."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.data = folder / "data"
        self.seed = seed
        self.server = Server(self.data, folder / "server.log")
        self.sample = read_sample()
        self.journal = Journal(self.sample)
        rows = np.load(PACKAGES / "questions.f16.npy").astype(np.float32)
        texts = json.loads((PACKAGES / "questions.json").read_text(encoding="utf-8"))
        self.questions = {text["text"]: row for text, row in zip(texts, rows, strict=True)}

    def run(self) -> None:
        step("Declare a collection in YAML: the volume is the registry")
        vecstow("apply", "-f", PACKAGES / "collection.yaml", "--data", self.data)

        step("Serve the volume")
        show_command("serve", "--data", self.data, "--port", self.server.port)
        with timed("ready"):
            self.server.start()

        step("Bring 10,000 real embeddings in, each batch acknowledged when it is durable")
        files = PACKAGES / "packages.f16.npy", "--payload", PACKAGES / "packages.jsonl.gz"
        vecstow("import", NAME, *files, "--url", self.server.url)

        step("Ask in plain words")
        self.ask()

        step(f"Kill the engine with SIGKILL while {WRITERS} clients insert, update and delete")
        self.write_and_kill()

        step("Start it again: it has nothing but the volume")
        question = self.questions[QUESTIONS[0]]
        with timed("from the start to the first answer"), Engine(self.server.url) as engine:
            self.server.start()
            engine.search(question)

        step("Verify every acknowledged write, then every answer against exact search")
        self.verify()

        step("Stop it, and check every file and every row of the volume")
        if self.server.end(signal.SIGTERM) != 0:
            raise DemoFailed("the server did not stop in order")
        vecstow("check", "--data", self.data)

    def ask(self) -> None:
        with Engine(self.server.url) as engine:
            for text in QUESTIONS:
                show_hits(f'"{text}"', engine.search(self.questions[text]))
            text = FILTERED_QUESTION
            show_hits(f'"{text}"', engine.search(self.questions[text]))
            show_hits(f"the same, where {json.dumps(FILTER)}", engine.search(self.questions[text], FILTER))
            text = HYBRID_QUESTION
            both = engine.search(self.questions[text], text=HYBRID_TEXT)
            show_hits(f'"{text}", with the words "{HYBRID_TEXT}"', both)
            text = GROUPED_QUESTION
            groups = engine.groups(self.questions[text], "section", 3)
            show_hits(f'"{text}", the best of each section', [group["hits"][0] for group in groups])

    def write_and_kill(self) -> None:
        enough = threading.Event()
        writers = [
            threading.Thread(target=self.write, args=(number, enough), name=f"writer {number}")
            for number in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        if not enough.wait(timeout=60):
            raise DemoFailed("the clients did not get enough acknowledged in a minute")
        time.sleep(random.Random(self.seed).uniform(0, 0.1))
        self.server.end(signal.SIGKILL)
        for writer in writers:
            writer.join()
        say(
            f"killed. Acknowledged until then: {self.journal.counts['insert']:,} inserts, "
            f"{self.journal.counts['update']:,} updates, {self.journal.counts['delete']:,} deletes; "
            f"{len(self.journal.in_flight)} requests without an answer"
        )

    def write(self, number: int, enough: threading.Event) -> None:
        """One client: writes until the server is gone, and notes each acknowledgement."""
        changes = random_changes(number, self.seed, self.sample)
        with Engine(self.server.url) as engine:
            for kind, points in changes:
                self.journal.begin(number, points)
                try:
                    if kind == "delete":
                        engine.delete(list(points))
                    else:
                        engine.upsert({i: point for i, point in points.items() if point is not None})
                except httpx.TransportError:
                    return
                self.journal.acknowledged(number, kind, points)
                if self.journal.count() >= ACKNOWLEDGED_BEFORE_KILL:
                    enough.set()

    def verify(self) -> None:
        with Engine(self.server.url) as engine:
            with timed("read back"):
                found = engine.get(self.journal.ids())
            report = self.journal.compare(found)
            if report.wrong:
                raise DemoFailed(f"{len(report.wrong)} points are not as acknowledged: {report.wrong[:5]}")
            say(f"{report.right:,} acknowledged points are there with vector and payload, none missing")
            say(f"{report.gone:,} acknowledged deletes stayed deleted")
            say(f"{report.undecided} requests had no answer: each is there as a whole or not at all")
            present = {i: point for i, point in found.items() if point is not None}
            every = list(self.questions.values())
            self.verify_answers(engine, present, every, None)
            self.verify_answers(engine, present, every[:FILTERED_QUESTIONS], FILTER)

    def verify_answers(
        self,
        engine: Engine,
        present: dict[str, Point],
        questions: list[np.ndarray],
        wanted: dict[str, Any] | None,
    ) -> None:
        """Each question against exact search over what is there."""
        name = "unfiltered" if wanted is None else "filtered"
        ids = [point_id for point_id, (_, payload) in present.items() if wanted is None or matches(payload)]
        row_of = {point_id: row for row, point_id in enumerate(ids)}
        vectors = unit_length(np.stack([present[point_id][0] for point_id in ids]))
        exact = 1.0 - unit_length(np.stack(questions)) @ vectors.T
        begin = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(clients.map(lambda row: engine.search(row, wanted), questions))
        rate = len(answers) / (time.perf_counter() - begin)
        recalls = [recall(hits, distances, row_of) for hits, distances in zip(answers, exact, strict=True)]
        if np.mean(recalls) < RECALL_MIN:
            raise DemoFailed(f"{name}: recall@{NEIGHBOURS} is {np.mean(recalls):.3f}, below {RECALL_MIN}")
        say(
            f"{len(answers)} {name} questions: recall@{NEIGHBOURS} {np.mean(recalls):.3f} of exact search, "
            f"distances right, {rate:.0f} answers/s"
        )


def recall(hits: list[dict[str, Any]], exact: np.ndarray, row_of: dict[str, int]) -> float:
    """The share of the nearest that was found; raises DemoFailed for a hit or a distance that cannot be."""
    for hit in hits:
        if hit["id"] not in row_of:
            raise DemoFailed(f"{hit['id']} is no point that may be found")
        if abs(hit["distance"] - exact[row_of[hit["id"]]]) > DISTANCE_ERROR_MAX:
            raise DemoFailed(f"the distance of {hit['id']} is {hit['distance']}")
    furthest = np.sort(exact)[NEIGHBOURS - 1] + DISTANCE_ERROR_MAX
    return sum(hit["distance"] <= furthest for hit in hits) / NEIGHBOURS


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its norm."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def read_sample() -> dict[str, Point]:
    """The 10,000 points by id: vector (float32, 384) and payload."""
    vectors = np.load(PACKAGES / "packages.f16.npy").astype(np.float32)
    with gzip.open(PACKAGES / "packages.jsonl.gz", "rt", encoding="utf-8") as lines:
        payloads = [json.loads(line) for line in lines]
    return {payload.pop("id"): (row, payload) for row, payload in zip(vectors, payloads, strict=True)}


def random_changes(
    number: int, seed: int, sample: dict[str, Point]
) -> Iterator[tuple[str, dict[str, Point | None]]]:
    """Yield what one client writes, without end; each works on ids of its own. None is a delete."""
    chance = random.Random(f"{seed}/{number}")
    own = sorted(sample)[number::WRITERS]
    packages = list(sample.values())
    for turn in range(1_000_000_000):
        kind = chance.choice(("insert", "insert", "update", "delete"))
        if kind == "insert":
            ids = [f"new/{number}/{turn}/{i}" for i in range(10)]
            own += ids
        else:
            ids = chance.sample(own, 5)
        points: dict[str, Point | None] = {}
        for point_id in ids:
            (first, payload), (second, _) = chance.sample(packages, 2)
            points[point_id] = None if kind == "delete" else ((first + second) / 2, payload | {"turn": turn})
        if kind == "delete":
            own = [point_id for point_id in own if point_id not in points]
        yield kind, points


def matches(payload: dict[str, Any]) -> bool:
    """FILTER in Python, for the exact search outside of the engine."""
    return payload["section"] == "games" and payload["installed_kib"] < 1000


def vecstow(*arguments: object) -> None:
    """Run one command, and show it with what it prints."""
    show_command(*arguments)
    done = subprocess.run([VECSTOW, *map(str, arguments)], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        say(line)
    if done.returncode != 0:
        raise DemoFailed(done.stderr.strip() or f"vecstow ended with {done.returncode}")


class timed:  # noqa: N801
    """Prints how long its block took."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.begin = time.perf_counter()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            say(f"{self.what}: {time.perf_counter() - self.begin:.2f} s")


def step(text: str) -> None:
    print(f"\n{text}", flush=True)


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def show_command(*arguments: object) -> None:
    say("$ vecstow " + " ".join(short(argument) for argument in arguments))


def short(argument: object) -> str:
    """A path below the working directory without the way to it."""
    if isinstance(argument, Path) and argument.is_relative_to(Path.cwd()):
        return str(argument.relative_to(Path.cwd()))
    return str(argument)


def show_hits(title: str, hits: list[dict[str, Any]]) -> None:
    say(title)
    for hit in hits[:3]:
        payload = hit["metadata"]
        say(f"   {hit['distance']:.3f}  {hit['id']}: {payload['summary']} ({payload['section']})")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the volume afterwards, and print where it is"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the random writes and the moment of the kill")
    options = parser.parse_args()
    begin = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="vecstow-demo-"))
    demo = Demo(folder, options.seed)
    held = False
    try:
        demo.run()
        held = True
    except DemoFailed as failed:
        print(f"\nFAILED: {failed}", file=sys.stderr)
    finally:
        demo.server.end(signal.SIGKILL)
        if held and not options.keep:
            shutil.rmtree(folder)
        else:
            print(f"\nThe volume and the server's log are in {folder}")
    if held:
        print(f"\nEverything held, in {time.perf_counter() - begin:.0f} s.")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
