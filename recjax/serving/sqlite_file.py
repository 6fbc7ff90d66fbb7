"""The SQLite file of a store: its tables, and how it is checked and opened."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from recjax.common.errors import UserError

BUSY_SECONDS = 5.0  # to wait for a lock of another process
HEADER = b"SQLite format 3\0"
# One transaction, so that a file never has a part of the tables. A store of an earlier
# version gets an identity.
SCHEMA = """
begin immediate;
create table if not exists events (
  sequence integer primary key autoincrement,
  id text not null unique,
  kind text not null,
  user text not null,
  timestamp real not null,
  items text not null,
  received real not null
);
create index if not exists events_by_user on events (user, sequence);
create table if not exists items (
  position integer primary key autoincrement,
  id text not null unique,
  text text not null,
  title text not null,
  state text not null
);
create table if not exists store (identity text not null);
insert into store (identity)
  select lower(hex(randomblob(16))) where not exists (select 1 from store);
commit;
"""
# Devices and inodes of a file and of its log; None for one that does not exist.
FileIds = list[tuple[int, int] | None]
Tables = dict[str, set[str]]  # names of columns, by table


def open_file(
    path: Path, *, create: bool
) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Opens the file of a store; a file that is refused stays as it is.

    Args:
      path: the file.
      create: whether a missing or empty file becomes a store.

    Returns:
      A connection to write with, and one to read with.

    Raises:
      UserError: the file cannot be opened, is damaged, or is no store.
    """
    try:
        tables = _read_tables(path)
        _check_tables(path, tables, create)
        db = _connect(path, "rwc" if create else "rw")
        try:
            _check_damage(db, path)
            db.execute("pragma journal_mode = wal")
            _create_tables(db, tables)
            return db, _connect(path, "rw")
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as e:
        raise UserError(f"store {path}: {e}") from None
    except OSError as e:
        raise UserError(f"store {path}: {e.strerror}") from None


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """Opens a connection that any one thread may use; commits reach the disk."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(
        uri,
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    db.execute("pragma synchronous = full")
    return db


def file_ids(path: Path) -> FileIds:
    """Returns the device and inode of the file of a store, and of its log."""
    found: FileIds = []
    for name in (path, _log(path)):
        try:
            status = os.stat(name)
            found.append((status.st_dev, status.st_ino))
        except OSError:  # deleted; some file systems have no log
            found.append(None)
    return found


def _log(path: Path) -> str:
    """Returns the path of the log that SQLite keeps next to the file."""
    return f"{os.path.realpath(path)}-wal"


def _read_tables(path: Path) -> Tables:
    """Returns the columns of a file's tables, without changing it; {} if it is new."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        start = file.read(len(HEADER))
    if not start:
        return {}
    if start != HEADER:
        raise UserError(f"store {path}: is not an SQLite file")
    # Without a log everything is in the file itself, and SQLite must not make a log.
    log = Path(_log(path))
    has_log = log.exists() and log.stat().st_size > 0
    with closing(_connect(path, "ro" if has_log else "ro&immutable=1")) as db:
        return _tables(db)


def _tables(db: sqlite3.Connection) -> Tables:
    """Returns the columns of all tables and views but those of SQLite itself."""
    found: Tables = {}
    rows = db.execute(
        "select t.name, c.name from sqlite_master t, pragma_table_info(t.name) c"
        " where t.type in ('table', 'view') and t.name not like 'sqlite_%'"
    )
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    return found


def _schema_tables() -> Tables:
    """Returns the columns of the tables that a store has."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(SCHEMA)
        return _tables(db)


def _check_tables(path: Path, tables: Tables, create: bool) -> None:
    """Refuses the file of another program; a store may lack all tables but `events`."""
    if not tables:
        if not create:
            raise UserError(f"store {path}: is empty; a store is made by recjax.serve")
        return
    own = _schema_tables()
    if "events" not in tables or any(
        tables[name] != own[name] for name in tables.keys() & own.keys()
    ):
        raise UserError(f"store {path}: is an SQLite file of another program")


def _check_damage(db: sqlite3.Connection, path: Path) -> None:
    found = db.execute("pragma quick_check").fetchone()[0]
    if found != "ok":
        raise UserError(f"store {path}: is damaged ({found.splitlines()[0]})")


def _create_tables(db: sqlite3.Connection, tables: Tables) -> None:
    """Creates the tables that the file lacks; one that has all may be locked."""
    if not _schema_tables().keys() <= tables.keys():
        db.executescript(SCHEMA)
