"""Runs the mutation tests (`make mutants`), all or a random sample, and prints the share that is caught, per package.

mutmut makes the mutants and runs the tests that reach them; this only chooses which, and adds up.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections import Counter, defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MUTMUT = Path(sys.executable).with_name("mutmut")
UNTESTED = "not checked"
CAUGHT = ("killed", "timeout", "caught by type check")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["bot.*"], help="names of mutants, with wildcards")
    parser.add_argument("--sample", type=int, default=0, help="at most so many of each package, at random")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    chosen = parser.parse_args()
    make()
    names = [name for name in results() if any(fnmatchcase(name, pattern) for pattern in chosen.patterns)]
    if chosen.sample:
        print(f"seed {chosen.seed}")  # noqa: T201 - for the terminal
        names = sample(names, chosen.sample, random.Random(chosen.seed))  # noqa: S311 - test data, not a secret
    run(names)
    verdicts = results()
    print(table({name: verdicts[name] for name in names}))  # noqa: T201 - for the terminal


def make() -> None:
    """Make every mutant and run every test once, to learn which of them reaches which mutant."""
    print("making the mutants and running the tests on the unchanged program: some minutes")  # noqa: T201 - for the terminal
    subprocess.run([MUTMUT, "run", "none"], check=False, capture_output=True)  # a name that no mutant has


def run(names: Sequence[str]) -> None:
    subprocess.run([MUTMUT, "run", *names], check=False)


def results() -> Mapping[str, str]:
    """What became of every mutant, by its name."""
    listed = subprocess.run([MUTMUT, "results", "--all", "true"], check=True, capture_output=True, text=True).stdout
    return dict(verdicts_in(listed))


def verdicts_in(listed: str) -> Iterator[tuple[str, str]]:
    for line in listed.splitlines():
        name, separator, verdict = line.strip().rpartition(": ")
        if separator:
            yield name, verdict


def sample(names: Sequence[str], count: int, chance: random.Random) -> list[str]:
    """At most `count` names of each package."""
    of_package = defaultdict(list)
    for name in sorted(names):
        of_package[package(name)].append(name)
    return [name for own in of_package.values() for name in chance.sample(own, min(count, len(own)))]


def package(name: str) -> str:
    return ".".join(name.split(".")[:2])


def table(verdicts: Mapping[str, str]) -> str:
    """The share caught per package, and the names that were not."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, verdict in verdicts.items():
        counts[package(name)][verdict] += 1
    lines = [f"{name}: {verdict}" for name, verdict in sorted(verdicts.items()) if verdict not in (*CAUGHT, UNTESTED)]
    for name, found in sorted(counts.items()):
        total = found.total() - found[UNTESTED]
        caught = sum(found[verdict] for verdict in CAUGHT)
        share = f"{caught / total:.0%}" if total else "-"
        lines.append(f"{name:<18} {caught:>5} of {total:>5} caught  {share:>4}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
