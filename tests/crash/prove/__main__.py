"""`python -m tests.crash.prove`: run the proof to a depth, tell how far it is, and what was found."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.crash.prove.part import DEPTHS, Outcome, Part
from tests.crash.prove.parts import parts
from tests.crash.prove.runner import WORKERS, Progress, run_batch, run_parts

TOLD_SECONDS = 10.0
"""Between two lines, where they cannot be written over each other."""
SUMMARY_CHARACTERS = 1_000
"""Characters of each finding in the summary at the end: of a long run, only the last lines are kept."""


class Teller:
    """Writes how far a part is: on a terminal over and over, else now and then."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        on_terminal = sys.stdout.isatty()
        if on_terminal or time.monotonic() - self._told_at > TOLD_SECONDS:
            self._told_at = time.monotonic()
            print(line(progress), end="\r" if on_terminal else "\n", flush=True)


def main() -> int:
    every = parts()
    arguments = parse(every)
    if unknown := set(arguments.only) - every.keys():
        print(f"there is no part {sorted(unknown)}; there are {', '.join(every)}")
        return 2
    chosen = [every[name] for name in arguments.only] or list(every.values())
    if arguments.repeat is not None:
        return repeat(chosen, arguments.repeat, arguments.json)
    seconds = sum((part.goals[arguments.depth] or 0) * part.case_seconds for part in chosen)
    print(
        f"proving to depth {arguments.depth!r} with seed {arguments.seed}, {WORKERS} processes:"
        f" {len(chosen)} parts, about {duration(seconds)}",
        flush=True,
    )
    begun_at = time.monotonic()
    wanted = [(part, goal_of(part, arguments)) for part in chosen if can_run(part, arguments.depth)]
    results = []
    for result in run_parts(wanted, arguments.depth, arguments.seed, Teller(), stop_at=arguments.stop_at):
        tell_end(result)
        results.append(result)
    write(arguments.json, results)
    return verdict(results, time.monotonic() - begun_at)


def goal_of(part: Part, arguments: argparse.Namespace) -> int | None:
    return part.goals[arguments.depth] if arguments.count is None else arguments.count


def can_run(part: Part, depth: str) -> bool:
    if part.goals[depth] == 0:
        return False
    if (why := part.missing()) is not None:
        print(f"{part.name}: SKIPPED: {why}", flush=True)
    return why is None


def parse(every: Iterable[str]) -> argparse.Namespace:
    """`every`: the names of the parts."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.prove", description=__doc__, epilog="\n  ".join(["parts:", *every]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--depth", choices=DEPTHS, default="ci")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="this part, and those of further --only"
    )
    parser.add_argument("--count", type=int, metavar="N", help="so many cases of each part")
    parser.add_argument("--seed", type=int, default=1, help="another one tries other cases")
    parser.add_argument("--stop-at", metavar="REGEX", help="end with the first finding that says this")
    parser.add_argument(
        "--stop-at-first", dest="stop_at", action="store_const", const="", help="end with the first finding"
    )
    parser.add_argument("--repeat", metavar="TEXT", help="one case again, as a finding names it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


def write(file: Path | None, results: list[Progress]) -> None:
    if file is not None:
        file.write_text(json.dumps([document(result) for result in results], indent=2) + "\n")


def repeat(chosen: list[Part], text: str, file: Path | None) -> int:
    [part] = chosen
    assert part.again is not None, f"{part.name} cannot repeat a case"
    outcome = run_batch(part.again(text))
    write(file, [Progress(part, None, outcome)])
    tell_findings(part, outcome)
    print(f"{outcome.cases} cases: {dict(outcome.facts)}")
    return 1 if outcome.findings else 0


def line(progress: Progress) -> str:
    goal = f" of {progress.goal:,}" if progress.goal is not None else ""
    left = progress.seconds_left
    estimate = f", about {duration(left)} left" if left is not None else ""
    found = len(progress.outcome.findings)
    return (
        f"{progress.part.name}: {progress.outcome.count:,}{goal} {progress.part.unit}"
        f" in {duration(progress.seconds)}{estimate}, {found} findings"
    )


def tell_end(result: Progress) -> None:
    print(line(result).replace(", about 0 s left", ""))
    if result.outcome.facts:
        print("    " + ", ".join(f"{fact}: {n:,}" for fact, n in sorted(result.outcome.facts.items())))
    tell_findings(result.part, result.outcome)
    if result.goal is not None and result.outcome.count < result.goal and not result.outcome.findings:
        print("    FEWER THAN ASKED")
    sys.stdout.flush()


def tell_findings(part: Part, outcome: Outcome) -> None:
    for finding in outcome.findings[:20]:
        print(f"  FOUND {finding.what}")
        print(f"    again: python -m tests.crash.prove --only {part.name} --repeat '{finding.repeat}'")


def document(result: Progress) -> dict[str, object]:
    return {
        "part": result.part.name,
        "unit": result.part.unit,
        "count": result.outcome.count,
        "goal": result.goal,
        "cases": result.outcome.cases,
        "seconds": round(result.seconds, 1),
        "facts": dict(sorted(result.outcome.facts.items())),
        "findings": [dataclasses.asdict(finding) for finding in result.outcome.findings],
    }


def verdict(results: list[Progress], seconds: float) -> int:
    """Print the result of the whole run, with every finding in short, and return the exit code."""
    for result in results:
        for finding in result.outcome.findings:
            print(f"FOUND by {result.part.name}: {finding.what[:SUMMARY_CHARACTERS]}")
    found = sum(len(result.outcome.findings) for result in results)
    short = [r.part.name for r in results if r.goal is not None and not r.reached]
    print(
        f"{found} findings in {duration(seconds)}"
        + (f"; fewer than asked: {', '.join(short)}" if short else "")
    )
    return 1 if found or short else 0


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    sys.exit(main())
