"""The board: what one process pins up, another reads whole or not at all."""

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from process.board import Board
from process.metrics import BUCKETS_SECONDS, Durations, Family, Sample, exposition

FAMILIES = (
    Family("onward_things_total", "counter", "Things"),
    Family("onward_seconds", "histogram", "Seconds"),
)


def test_a_page_is_read_whole_or_not_at_all_while_another_process_writes_it():
    board = Board(1)
    child = os.fork()
    if child == 0:
        for number in range(3_000):
            board.pin(0, [Sample("onward_things_total", number, {"n": str(number)})] * (1 + number % 50))
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        samples = list(board.read())
        assert len({sample.value for sample in samples}) <= 1
        assert not samples or len(samples) == 1 + samples[0].value % 50
    (last,) = {sample.value for sample in board.read()}
    assert last == 2_999


def test_more_than_a_page_holds_is_refused_and_the_old_figures_stay():
    board = Board(2)
    board.pin(1, [Sample("onward_things_total", 1)])
    with pytest.raises(ValueError, match="more than a page holds"):
        board.pin(1, [Sample("onward_things_total", 2, {"label": "x" * 200_000})])
    assert list(board.read()) == [Sample("onward_things_total", 1, {"worker": "1"})]


def test_durations_are_counted_in_the_bucket_they_belong_to():
    durations = Durations()
    for seconds in (0.0, 0.0005, 0.0006, 99.0):
        durations.add(seconds)
    text = exposition(FAMILIES, durations.samples("onward_seconds", {"route": "a"})).decode()
    (family,) = text_string_to_metric_families(text)
    found = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert found["0.0005"] == 2
    assert found["0.001"] == found["10.0"] == 3
    assert found["+Inf"] == found["onward_seconds_count"] == 4
    assert found["onward_seconds_sum"] == pytest.approx(99.0011)
    assert len(found) == len(BUCKETS_SECONDS) + 3


def test_a_label_cannot_break_out_of_its_line():
    text = exposition(FAMILIES, [Sample("onward_things_total", 1, {"reason": 'a"} 9\n# b\\'})]).decode()
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert (sample.name, sample.labels) == ("onward_things_total", {"reason": 'a"} 9\n# b\\'})
