"""Sort more values than fit into memory, in an SQLite database that has no name.

Theory. SQLite keeps a page cache of :data:`CACHE` KiB for each store and spills the other rows, and the runs of a sort,
to temporary files that it has already unlinked. So memory is bounded, and a killed process leaves nothing on the disk.
Each iteration is a query of its own: a store can be read as often as wanted.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from typing import Any

from smfix.errors import WriteFailed

CACHE = 1024


class SortedStore:
    """Rows of `keys` sort keys and one value; iterating yields (key, ..., value) in the order of the keys.

    Integers fit into 64 bits, signed. Every method raises WriteFailed if the temporary folder takes no more.
    """

    def __init__(self, keys: int = 1) -> None:
        columns = [f"k{number}" for number in range(keys)]
        self._insert = f"INSERT INTO rows VALUES ({'?, ' * keys}?)"  # noqa: S608 - made from a number
        self._select = f"SELECT * FROM rows ORDER BY {', '.join(columns)}"  # noqa: S608 - made from a number
        self._count = 0
        self._database = sqlite3.connect("", isolation_level=None)
        # The database ends with the process, so it needs no journal.
        self._database.executescript(
            f"PRAGMA cache_size = -{CACHE}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            f"CREATE TABLE rows ({', '.join(columns)}, value); BEGIN"
        )

    def __del__(self) -> None:
        """Free the space in the temporary folder."""
        self._database.close()

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._count

    def add(self, *keys: str | float, value: object = None) -> None:
        """Add one row; `value` is anything that pickle takes."""
        # As bytes: SQLite takes no lone surrogates, which the names of files may hold. The order is the same.
        row = [key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key for key in keys]
        self._query(self._insert, (*row, None if value is None else pickle.dumps(value)))
        self._count += 1

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows, the smallest key first."""
        cursor = self._query(self._select)
        while (row := self._next(cursor)) is not None:
            *keys, value = row
            decoded = (key.decode("utf-8", "surrogatepass") if isinstance(key, bytes) else key for key in keys)
            yield (*decoded, None if value is None else pickle.loads(value))  # noqa: S301 - written by add()

    def count_distinct(self) -> int:
        """Return how many different first keys there are."""
        # GROUP BY sorts in runs; count(DISTINCT) would build a tree at random places of the file.
        return int(self._next(self._query("SELECT count(*) FROM (SELECT 1 FROM rows GROUP BY k0)"))[0])

    def _query(self, text: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(text, values)
        except sqlite3.OperationalError as error:
            raise _failed(error) from error

    def _next(self, cursor: sqlite3.Cursor) -> Any:
        try:
            return cursor.fetchone()
        except sqlite3.OperationalError as error:
            raise _failed(error) from error


def _failed(error: sqlite3.OperationalError) -> WriteFailed:
    return WriteFailed(f"the temporary folder cannot be written to ({error}); SQLITE_TMPDIR or TMPDIR names another")
