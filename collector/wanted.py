"""A request for the web site, as far as its pages are concerned: which page, and what distinguishes its visitor."""

from dataclasses import dataclass

from collector.caching import page_of
from collector.upstream import Headers


@dataclass(slots=True)  # not frozen: that makes it three times as dear, and every request has one
class Wanted:
    """What is asked for, under which name of ours."""

    scheme: str
    """http or https, as the visitor has it."""
    host: str
    """As the visitor named it, with its port; "" for what can be no host."""
    path: str
    query: str
    headers: Headers

    @property
    def page(self) -> str:
        """The page's name: the frontend is told scheme and host, and may put them into its pages."""
        return f"{self.scheme}://{self.host}{page_of(self.path, self.query)}"
