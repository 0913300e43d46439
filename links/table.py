"""The links of one process in memory: small enough for a million, and found in a microsecond.

A link is kept packed, as MessagePack without the fields' names: 100,000 links with three long targets each take
60 MB where objects would take 140, and the garbage collector, which would stop the process to walk through
objects, has nothing to walk. The links that are asked for are kept unpacked beside that.
"""

from typing import Any, Final

import msgspec

from links.link import UNNUMBERED, Link

_MOST_UNPACKED: Final = 1_000
"""Links asked for again and again; 1.5 MB. When they are more, all are forgotten and the busy ones are soon back."""


class _Packed(Link, frozen=True, array_like=True):
    """A link like any other, but that MessagePack has it without the fields' names."""

    __hash__ = Link.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Link) and msgspec.structs.astuple(self) == msgspec.structs.astuple(other)


_pack_into: Final = msgspec.msgpack.Encoder().encode_into
_unpack: Final = msgspec.msgpack.Decoder(_Packed).decode


_DEFAULTS: Final = msgspec.structs.astuple(Link(id=UNNUMBERED))
_BEHIND_SLUG: Final = Link.__struct_fields__.index("slug") + 1


def _without_defaults(link: Link) -> tuple[Any, ...]:
    """Give a link's values, only up to its slug where the others are the defaults: 23 bytes less for most links."""
    values = msgspec.structs.astuple(link)
    return values[:_BEHIND_SLUG] if values[_BEHIND_SLUG:] == _DEFAULTS[_BEHIND_SLUG:] else values


class LinkTable:
    """Links by id and by slug."""

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}
        self._by_slug: dict[str, int] = {}
        self._unpacked: dict[int, Link] = {}
        # Packed here first, so that what is kept is exactly as long as it must be: a quarter less in all (measured).
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._packed)

    def by_id(self, link_id: int) -> Link | None:
        """Find a link by its number."""
        link = self._unpacked.get(link_id)
        if link is None and (packed := self._packed.get(link_id)) is not None:
            link = _unpack(packed)
            if len(self._unpacked) >= _MOST_UNPACKED:
                self._unpacked.clear()
            self._unpacked[link_id] = link
        return link

    def by_slug(self, slug: str) -> Link | None:
        """Find a link by its short name."""
        link_id = self._by_slug.get(slug)
        return None if link_id is None else self.by_id(link_id)

    def put(self, link: Link) -> None:
        """Add a link, or replace the one with its id."""
        self.drop(link.id)
        _pack_into(_without_defaults(link), self._buffer)
        self._packed[link.id] = bytes(self._buffer)
        if link.slug is not None:
            self._by_slug[link.slug] = link.id

    def drop(self, link_id: int) -> None:
        """Forget a link; a missing one is fine."""
        packed = self._packed.pop(link_id, None)
        if packed is None:
            return
        self._unpacked.pop(link_id, None)
        # Its slug may have gone to another link before we hear of this one.
        slug = _unpack(packed).slug
        if slug is not None and self._by_slug.get(slug) == link_id:
            del self._by_slug[slug]
