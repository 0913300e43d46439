"""Refused records: which of a batch Kafka does not take, found without a reader ever seeing half a batch.

A refused record fails the whole piece it is sent in. So a refused piece is tried again in halves, and those again,
each time by a new publisher in a transaction that is thrown away, until the refused record stands alone. Its dead
letter takes its place and is tried in turn; a dead letter that is refused too can only stay in Redis.

The work is bounded: a broker looks at records before it looks at their producer, so that one attempt shows all
refused pieces, and log2(n) + 2 attempts find one refused record among n, more of them in at most 2n / 100 more.
Measured with 4,000: one took 10 attempts and 1.5 s, every tenth 68 and 20 s, all of them 84 and 22 s.

Without transactions an attempt is the real thing: what was taken has arrived and is not sent again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final, Protocol

from aiokafka.errors import (
    BrokerResponseError,
    CorruptRecordException,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    PolicyViolationError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
    kafka_errors,
)

from kafkastore.outgoing import Outgoing
from kafkastore.piece import Piece
from kafkastore.record import Record


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc]  # aiokafka's classes are Any to mypy
    """What a broker calls a record it does not like for another reason; aiokafka does not know it yet."""

    errno = 87
    message = "INVALID_RECORD"


kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)

ABOUT_A_RECORD: Final = (
    *TOO_LARGE,
    CorruptRecordException,  # also: no key, in a compacted topic of an old broker
    InvalidTimestampError,
    InvalidRecordError,
    PolicyViolationError,
    UnsupportedForMessageFormatError,
)
"""Errors that another attempt would meet again, and other records would not. All others are the broker's own."""


_MOST_PIECES: Final = 100
"""In one attempt: a partition takes them one after the other, within 10 s even at 0.1 s each."""


class Verdict(Enum):
    """What Kafka said of a piece."""

    TAKEN = auto()
    REFUSED = auto()
    UNTRIED = auto()
    """It came behind a refused one: after that a broker takes nothing more from this producer there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Kafka said of a piece, and why."""

    piece: Piece
    verdict: Verdict
    error: Any = None
    """One of ABOUT_A_RECORD if it was refused."""


class RefusedError(Exception):
    """Kafka refused a part of a batch; the publisher must not be used again."""

    def __init__(self, outgoing: Outgoing, answers: Sequence[Answer], *, transactions: bool) -> None:
        super().__init__("Kafka refused a record")
        self.outgoing = outgoing
        self.answers = answers
        self.transactions = transactions
        """False: what was taken has arrived."""


class _Publisher(Protocol):
    async def pieces(self, records: dict[int, Record]) -> list[Piece]: ...
    async def attempt(self, pieces: Sequence[Piece]) -> list[Answer]: ...


async def sift(
    refused: RefusedError,
    opened: Callable[[], AbstractAsyncContextManager[_Publisher]],
    letter_of: Callable[[bytes, str], Record],
) -> Outgoing:
    """Give what Kafka takes of a batch that it refused a part of; raises PublishError.

    `letter_of` gives the dead letter of a line and a reason.
    """
    outgoing, answers = refused.outgoing, refused.answers
    records, invalid, taken = dict(outgoing.records), list(outgoing.invalid), set(outgoing.arrived)
    while True:
        taken |= {index for one in answers if one.verdict is Verdict.TAKEN for index in one.piece.records}
        suspects, found = judge(answers)
        letters = {}
        for index, reason in found.items():
            if records[index].topic.endswith(".dead"):
                del records[index]
                invalid.append(index)
            else:
                records[index] = letters[index] = letter_of(outgoing.batch.lines[index], reason)
        if not suspects and not letters:
            arrived = frozenset() if refused.transactions else frozenset(taken)
            return replace(outgoing, records=records, invalid=tuple(invalid), arrived=arrived)
        async with opened() as publisher:
            pieces = [*suspects, *await publisher.pieces(letters)]
            answers = await publisher.attempt(pieces[:_MOST_PIECES])
        answers += [Answer(piece, Verdict.UNTRIED) for piece in pieces[_MOST_PIECES:]]


def answers_of(pieces: Sequence[Piece], results: Sequence[object]) -> list[Answer]:
    """Read what became of pieces that were sent in this order; raises the first error that is about no record."""
    refused_in: set[tuple[str, int]] = set()
    answers = []
    for piece, result in zip(pieces, results, strict=True):
        where = (piece.topic, piece.partition)
        if isinstance(result, ABOUT_A_RECORD):
            refused_in.add(where)
            answers.append(Answer(piece, Verdict.REFUSED, result))
        elif isinstance(result, OutOfOrderSequenceNumber) and where in refused_in:
            answers.append(Answer(piece, Verdict.UNTRIED))
        elif isinstance(result, BaseException):
            raise result
        else:
            answers.append(Answer(piece, Verdict.TAKEN))
    return answers


def judge(answers: Sequence[Answer]) -> tuple[list[Piece], dict[int, str]]:
    """Give the pieces to try next, and why which records are refused, by index in the batch."""
    suspects: list[Piece] = []
    refused: dict[int, str] = {}
    for answer in answers:
        piece = answer.piece
        if answer.verdict is Verdict.UNTRIED:
            suspects.append(piece)
        elif answer.verdict is Verdict.REFUSED and len(piece.records) > 1:
            suspects += piece.halves()
        elif answer.verdict is Verdict.REFUSED:
            refused |= dict.fromkeys(piece.records, f"refused by Kafka: {answer.error.message}")
    return suspects, refused
