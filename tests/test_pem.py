"""A key on its way to OpenSSL."""

import sys
from pathlib import Path

import pytest

from process.pem import as_file


def test_what_is_lent_is_there_as_a_file_and_then_gone():
    with as_file(b"a key") as path:
        assert Path(path).read_bytes() == b"a key"
    assert not Path(path).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is a file of its owner's, gone at once")
def test_it_is_never_on_a_disk_which_may_be_read_only():
    with as_file(b"a key") as path:
        assert str(Path(path).readlink()).startswith("/memfd:")
