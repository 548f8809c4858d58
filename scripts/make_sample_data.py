"""Choose the sample data of examples/packages from the full set of 50,000 packages.

usage: make_sample_data.py SOURCE [--out FOLDER]

SOURCE holds packages.f16.npy (50,000 x 384 float16), packages.jsonl.gz (id and payload of each row),
queries.f16.npy (1,500 x 384 float16), queries.json (the package that each was taken from) and
truth.cosine.npz (the exact nearest rows of each query). The one-line summaries come from the package lists
of the Debian machine that the script runs on (`apt-cache dumpavail`); a package whose version differs there
is left out, because its summary may have changed.

The same source and the same lists give the same files, byte for byte.
"""

import argparse
import gzip
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

SEED = 20
ROWS = 10_000
QUESTIONS = 200
NEIGHBOURS = 10  # of each question: the answers a search finds here are those it finds among all 50,000
PLAIN_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9+/,'-]*( [A-Za-z0-9][A-Za-z0-9+/,'-]*){2,11}")
# People look for programs; what such packages hold is looked for by those who build programs.
NO_PROGRAM = re.compile(
    r"(lib|golang-|node-|ruby-|r-|python3?-|php-|haskell-|elpa-|dict-|gcc-|gobjc|g\+\+-|cpp-|gir1\.2-|task-|hunspell-)"
    r".*|.*-(dev|doc|docs|dbg|data|common|perl|java|el|plugins?|dkms)"
)

Payload = dict[str, Any]


def is_plain(package: str, summary: str) -> bool:
    """Tell whether a summary reads like something a person would type to find a program."""
    return NO_PROGRAM.fullmatch(package) is None and PLAIN_WORDS.fullmatch(summary) is not None


def summaries_by_package() -> Iterator[tuple[tuple[str, str], str]]:
    """Yield ((package, version), summary) for each package that the machine's lists know."""
    listing = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True, text=True).stdout
    for paragraph in listing.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if line.startswith(("Package: ", "Version: ", "Description: "))
        )
        if len(fields) == 3 and fields["Description"]:
            yield (fields["Package"], fields["Version"]), fields["Description"]


def read_payloads(path: Path) -> list[Payload]:
    """Read one payload per row."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def choose_questions(
    packages: list[str],
    needed_rows: list[set[int]],
    known: set[int],
    summaries: dict[str, str],
    rng: Generator,
) -> list[int]:
    """Choose queries whose rows are all known and whose text is plain, no text twice."""
    first_with_text: dict[str, int] = {}
    for query, package in enumerate(packages):
        text = summaries.get(package, "")
        if is_plain(package, text) and needed_rows[query] <= known:
            first_with_text.setdefault(text.lower(), query)
    candidates = list(first_with_text.values())
    if len(candidates) < QUESTIONS:
        raise SystemExit(f"only {len(candidates)} plain questions found, {QUESTIONS} wanted")
    return sorted(rng.choice(candidates, QUESTIONS, replace=False).tolist())


def choose_rows(needed: set[int], known: set[int], rng: Generator) -> list[int]:
    """Choose the needed rows and random ones, in the order of the source."""
    others = sorted(known - needed)
    return sorted(needed | set(rng.choice(others, ROWS - len(needed), replace=False).tolist()))


def main() -> None:
    """Read the source, choose, and write the four files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path("examples/packages"))
    arguments = parser.parse_args()
    source: Path = arguments.source
    out: Path = arguments.out
    rng = np.random.default_rng(SEED)

    payloads = read_payloads(source / "packages.jsonl.gz")
    by_version = dict(summaries_by_package())
    summary_of_row = [by_version.get((payload["id"], payload["version"]), "") for payload in payloads]
    known = {row for row, summary in enumerate(summary_of_row) if summary}
    summaries = {payloads[row]["id"]: summary_of_row[row] for row in known}
    row_of_package = {payload["id"]: row for row, payload in enumerate(payloads)}

    packages: list[str] = json.loads((source / "queries.json").read_text(encoding="utf-8"))
    nearest = np.load(source / "truth.cosine.npz")["rows"][:, :NEIGHBOURS].tolist()
    needed_rows = [
        {*neighbours, row_of_package.get(package, -1)}
        for package, neighbours in zip(packages, nearest, strict=True)
    ]
    questions = choose_questions(packages, needed_rows, known, summaries, rng)
    needed = set().union(*(needed_rows[query] for query in questions))
    rows = choose_rows(needed, known, rng)

    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "packages.f16.npy", np.load(source / "packages.f16.npy")[rows])
    np.save(out / "questions.f16.npy", np.load(source / "queries.f16.npy")[questions])
    # Without a name and a time the same lines give the same bytes.
    with (
        (out / "packages.jsonl.gz").open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as lines,
    ):
        for row in rows:
            line = {"id": payloads[row]["id"], "summary": summary_of_row[row], **payloads[row]}
            lines.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    asked = [{"text": summaries[packages[query]], "package": packages[query]} for query in questions]
    lines_of_json = ",\n".join(json.dumps(question, ensure_ascii=False) for question in asked)
    (out / "questions.json").write_text(f"[\n{lines_of_json}\n]\n", encoding="utf-8")
    print(f"{len(rows)} rows, {len(needed)} of them for {len(questions)} questions; written to {out}")


if __name__ == "__main__":
    main()
