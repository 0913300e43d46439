"""A MaxMind-format table, opened from a file, asked for places, and taken anew when the file is replaced.

The file is read into memory whole: a table that is mapped instead, and cut short by whoever updates it, ends the
process with SIGBUS. The reader is the one in Rust, by the author of maxminddb and with its interface: maxminddb's C
extension crashes on damaged records, its pure reader is five times slower (docs/decisions.md).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path
from socket import AF_INET6, inet_pton

import maxminddb_rust as maxminddb

from geoip.place import NOWHERE, Layout, Place, layout_of

SHIPPED = Path(__file__).parent / "data" / "country.mmdb"
# Asked for by the shipped table's licence wherever its answers are shown: see data/README.md.
SHIPPED_CREDIT = "IP geolocation by DB-IP, https://db-ip.com"

# All that maxminddb was seen to raise on damaged files: cut at every length, with bytes changed, with pages zeroed.
DAMAGED = (maxminddb.InvalidDatabaseError, RecursionError, TypeError, ValueError)

MAPPED = bytes(10) + b"\xff\xff"  # how the sixteen bytes of ::ffff:a.b.c.d begin
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# GeoIP2 describes some networks by their owner only; the first that tells the layout is within the first few.
RECORDS_LOOKED_AT = 1_000


class DatabaseError(Exception):
    """The table cannot be used. Its text is one sentence for the operator: which file, what is wrong, what helps."""


def open_database(path: Path | None = None) -> "Database":
    """Opens the table in that file, or the shipped one; raises DatabaseError."""
    return Database(path or SHIPPED)


class Database:
    """A table that outlives the file it came from.

    Safe to ask from several threads, also while one of them reloads it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = _stamp(path)
        self._table = _read(path)

    @property
    def database_type(self) -> str:
        """What the table calls itself, such as "GeoLite2-City"."""
        return self._table.database_type

    @property
    def built(self) -> datetime:
        """When its maker built it, in UTC."""
        return self._table.built

    @property
    def credit(self) -> str | None:
        """A line to show beside the answers, if the table's licence asks for one."""
        return SHIPPED_CREDIT if self.path == SHIPPED else None

    def __str__(self) -> str:
        return f"{self.path} ({self.database_type}, built {self.built:%Y-%m-%d})"

    def place_of(self, address: str) -> Place:
        """Where that address is: NOWHERE if the table does not say, or if the text is no address.

        Never raises. Takes what inet_pton takes, so no zone ids, no "127.1"; ::ffff:a.b.c.d is looked up as a.b.c.d.
        """
        table = self._table
        try:
            # The reader parses as strictly as inet_pton, and in a third of the time; it takes mapped ones for IPv6.
            record = table.reader.get(_parsed(address) if "ffff" in address.lower() else address)
        except (OSError, *DAMAGED):
            # No address; or IPv6, in a table of IPv4 only; or a record that is damaged.
            return NOWHERE
        return table.layout(record) if isinstance(record, dict) else NOWHERE

    def reload_if_replaced(self) -> bool:
        """Takes the table anew if its file has changed since the last look; says whether it did. Blocks meanwhile.

        Raises DatabaseError if the new file cannot be used, or is gone: once for each such file, and the old table
        stays. Files are best replaced by a rename; one overwritten in place is read again when it is whole.
        """
        stamp = _stamp(self.path)
        if stamp == self._seen:
            return False
        self._seen = stamp  # taken before the read: what changes meanwhile is seen next time
        self._table = _read(self.path)
        return True


@dataclass(frozen=True, slots=True)
class _Table:
    reader: maxminddb.Reader
    layout: Layout
    database_type: str
    built: datetime


def _read(path: Path) -> _Table:
    try:
        with path.open("rb") as file:
            reader = maxminddb.open_database(file, maxminddb.MODE_FD)  # reads it to the end
        about = reader.metadata()
        layouts = (layout_of(record) for _, record in islice(reader, RECORDS_LOOKED_AT))
        layout = next((layout for layout in layouts if layout), None)
        built = EPOCH + timedelta(seconds=about.build_epoch)
    except OSError as error:
        raise DatabaseError(
            f"The GeoIP table {path} cannot be read ({error.strerror}): {_cure(path)}."
        ) from error
    except (*DAMAGED, OverflowError) as error:
        raise DatabaseError(
            f"The GeoIP table {path} is damaged or no MaxMind-format file: {_cure(path)}."
        ) from error
    if layout is None:
        raise DatabaseError(
            f"The GeoIP table {path} ({about.database_type}) does not say where addresses are: {_cure(path)}."
        )
    return _Table(reader, layout, about.database_type, built)


def _cure(path: Path) -> str:
    if path == SHIPPED:
        return "install the package again, or set GEOIP_DB to a table of your own"
    return "set GEOIP_DB to a Country or City table, or leave it unset for the shipped one"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file is replaced; None while there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _parsed(address: str) -> IPv4Address | IPv6Address:
    """inet_pton is ten times faster than ipaddress's own parsing, and as strict."""
    packed = inet_pton(AF_INET6, address)
    return IPv4Address(packed[12:]) if packed.startswith(MAPPED) else IPv6Address(packed)
