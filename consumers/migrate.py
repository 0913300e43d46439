"""The steps of the consumers' tables."""

from typing import Final

from links.migrate import Steps

CONSUMER_STEPS: Final = Steps(("0001", "0002", "0003"), "consumers_version", "consumers:migrations", 4677002)
