"""What a `check` finds: one sentence a thing, with the cure."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from process.run import FAILED


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know."""

    text: str
    fatal: bool = True
    """False: it works, and this is what it costs."""


def report(findings: Iterable[Finding], what_is_well: str) -> NoReturn:
    """Print them and exit: 1 where one is fatal, else 0 after saying what is well."""
    failed = False
    for finding in findings:
        print(finding.text)  # noqa: T201 (the answer of a command)
        failed |= finding.fatal
    if failed:
        sys.exit(FAILED)
    print(what_is_well)  # noqa: T201
    sys.exit()
