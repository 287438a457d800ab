"""What the errors of redis-py, DuckDB and the operating system mean, and the way out of each.

A library is asked only if it was imported, because its import would be lost time.
"""

import errno
import sys

ROWS_STAY = "Rows that were written stay"

WAYS_OUT = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "name a file; this is a folder",
    errno.EACCES: "run the command as the user who owns it, or give this user the right",
    errno.EPERM: "run the command as the user who owns it, or give this user the right",
    errno.EROFS: "choose a folder that can be written, with --folder",
    errno.ENOSPC: "make room on this disk, and repeat the command",
    errno.EDQUOT: "make room in this user's quota, and repeat the command",
    errno.EMFILE: "raise the number of open files (ulimit -n), and repeat the command",
    errno.ENFILE: "the host has no more open files to give; close programs, and repeat the command",
    errno.ENOMEM: "the host has no more memory to give; close programs, and repeat the command",
    errno.EIO: "the disk has a fault; look at the system's log",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EADDRINUSE: "choose another port, or end the process that has it",
    errno.EADDRNOTAVAIL: "choose an address of this host",
    errno.ECONNREFUSED: "start what listens there, or correct the address",
}
"""errno -> what to do. An error with another number keeps its traceback: it may be a bug."""


def redis_message(error: Exception) -> tuple[str, bool] | None:
    """Return what an error of redis-py means, and whether the store cannot be reached."""
    if "redis" not in sys.modules:
        return None
    import redis

    match error:
        # These two are connection errors of redis-py, and answers of a store that is reached.
        case redis.exceptions.AuthenticationError() | redis.exceptions.AuthorizationError():
            way_out = "correct user and password in --store"
            return f"the online store refused the login: {error}; {way_out}", False
        case redis.ConnectionError() | redis.TimeoutError():
            reason = str(error).rstrip(".")
            back = "repeat the command when it is back"
            return f"the online store does not answer: {reason}. {ROWS_STAY}; {back}", True
        case redis.exceptions.NoPermissionError():
            way_out = "let an administrator of the store give this user the command (ACL SETUSER)"
        case redis.exceptions.OutOfMemoryError():
            way_out = "raise its maxmemory, and repeat the command"
        case redis.exceptions.ReadOnlyError():
            way_out = "name the master in --store, or use redis+sentinel://"
        case redis.RedisError():
            way_out = "repeat the command once the store takes it"
        case _:
            return None
    return f"the online store refused a command: {error}. {ROWS_STAY}; {way_out}", False


def duckdb_message(error: Exception) -> str | None:
    """Return what an error of DuckDB means; it names no data."""
    if "duckdb" not in sys.modules:
        return None
    import duckdb

    from features.storage.database import duckdb_reason

    match error:
        case duckdb.OutOfMemoryException():
            way_out = "close programs, or give the command a host with more memory"
        case duckdb.IOException():
            way_out = "check that the file is there, can be read and the disk has room"
        case duckdb.InvalidInputException() | duckdb.SerializationException():
            way_out = "the file is damaged: restore it, or ingest its rows again"
        case duckdb.Error():
            way_out = "correct the query or the file that it reads"
        case _:
            return None
    return f"DuckDB cannot go on: {duckdb_reason(error)}; {way_out}"


def system_message(error: Exception) -> str | None:
    """Return what an error of the operating system means; None if it may be a bug."""
    if not isinstance(error, OSError) or error.errno not in WAYS_OUT:
        return None
    where = f" ({error.filename})" if error.filename else ""
    return f"the operating system says: {error.strerror}{where}; {WAYS_OUT[error.errno]}"
