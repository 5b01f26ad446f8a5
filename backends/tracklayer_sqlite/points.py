"""Reading a run's points: series and their statistics, rows in order, and a digest of them.

Of a key's points at one step, those that are not folded yet win over the folded one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection

if TYPE_CHECKING:
    import numpy as np

    from tracklayer.protocol import MetricRule

FETCH: Final = 10_000
_NOT_NEWER: Final = (
    "NOT EXISTS (SELECT 1 FROM temp.newest n WHERE n.run = p.run AND n.key_id = p.key_id AND n.step = p.step)"
)
_POINTS: Final = (
    "SELECT value FROM temp.newest WHERE run = 1 AND key_id = ?1 UNION ALL "
    f"SELECT value FROM points p WHERE run = 1 AND key_id = ?1 AND {_NOT_NEWER}"
)

_SUMS: Final = (
    "count(*), count(p.value), coalesce(sum(CAST(p.time * 1000000 AS INTEGER) & 2147483647), 0), "
    "coalesce(sum(CAST(p.value * 1000000000000 AS INTEGER) & 2147483647), 0)"
)
_FOLDED: Final = "points p WHERE run = 1 AND key_id = ? AND step <= ?"
_REPLACED: Final = (
    "temp.newest n CROSS JOIN points p ON p.run = n.run AND p.key_id = n.key_id AND p.step = n.step "
    "WHERE n.run = 1 AND n.key_id = ? AND n.step <= ?"
)
_NEW: Final = "temp.newest p WHERE run = 1 AND key_id = ? AND step <= ?"


def statistics(connection: Connection, key_id: int, rule: MetricRule | None) -> dict[str, Any] | None:
    """Return a metric's last value and, where a rule asks for more, the rest; None if it has none."""
    ends = [
        row
        for table in ("points", "temp.newest")  # of one step, the latter counts
        for row in connection.exec_driver_sql(
            f"SELECT step, value FROM {table} WHERE run = 1 AND key_id = ? ORDER BY step DESC LIMIT 1",
            (key_id,),
        )
    ]
    if not ends:
        return None
    last = ends[-1] if ends[-1][0] >= ends[0][0] else ends[0]
    found = {"last": number(last[1])}
    if rule is not None and rule.summary:
        low, high, mean = connection.exec_driver_sql(
            "SELECT min(value), max(value), CASE WHEN count(*) = count(value) THEN avg(value) END "
            f"FROM ({_POINTS})",
            (key_id,),
        ).one()
        found |= {"min": number(low), "max": number(high), "mean": number(mean)}
    return found


def number(value: Any) -> Any:
    """Return what a number's column stands for."""
    return float("nan") if value is None else value


def collect_newest(connection: Connection) -> None:
    """Copy what is not folded yet to temp.newest, one point a key and step."""
    connection.exec_driver_sql(
        "CREATE TEMP TABLE newest (run INTEGER, key_id INTEGER, step INTEGER, time REAL, value, "
        "PRIMARY KEY (run, key_id, step)) WITHOUT ROWID"
    )
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO temp.newest SELECT run, key_id, step, time, value FROM new_points "
        "ORDER BY run, key_id, step, seq"
    )


def sort_into_copy(connection: Connection, after: int) -> None:
    """Copy what was logged above a step to temp.sorted, in the order of steps, times and keys."""
    collect_newest(connection)
    connection.exec_driver_sql("CREATE TEMP TABLE sorted (step, time, key_id, value, kind, data)")
    # key by key: so SQLite goes straight to the first step of each
    connection.exec_driver_sql(
        "INSERT INTO temp.sorted SELECT step, time, key_id, value, kind, data FROM ("
        "SELECT step, time, p.key_id, value, NULL AS kind, NULL AS data FROM keys k CROSS JOIN points p "
        f"WHERE p.run = k.run AND p.key_id = k.key_id AND step > ?1 AND {_NOT_NEWER} "
        "UNION ALL SELECT step, time, key_id, value, NULL, NULL FROM temp.newest WHERE step > ?1 "
        "UNION ALL SELECT step, time, o.key_id, NULL, kind, data FROM keys k CROSS JOIN objects o "
        "WHERE o.run = k.run AND o.key_id = k.key_id AND step > ?1) "
        "ORDER BY step, time, key_id",
        (after,),
    )


def points_digest(connection: Connection, through: int) -> str:
    """Return a word that changes when a point at or below a step is added or replaced.

    It is made of sums that are exact in any order, so that folding points does not change it: of times in
    microseconds, and of values in units of 1e-12, cut to 31 bits each.
    """
    collect_newest(connection)
    digest = hashlib.sha256()
    for key_id in connection.exec_driver_sql("SELECT key_id FROM keys ORDER BY key_id").scalars().all():
        folded, replaced, new = (
            connection.exec_driver_sql(f"SELECT {_SUMS} FROM {points}", (key_id, through)).one()
            for points in (_FOLDED, _REPLACED, _NEW)
        )
        sums = [a - b + c for a, b, c in zip(folded, replaced, new, strict=True)]
        if any(sums):
            digest.update(json.dumps([key_id, sums]).encode())
    objects = connection.exec_driver_sql(
        "SELECT o.key_id, step, time, kind, data FROM keys k CROSS JOIN objects o "
        "WHERE o.run = k.run AND o.key_id = k.key_id AND step <= ? ORDER BY o.key_id, step",
        (through,),
    )
    for row in objects:
        digest.update(json.dumps(list(row)).encode())
    return digest.hexdigest()[:16]


def series(connection: Connection, table: str, key_id: int, order: str) -> tuple[Any, Any, Any]:
    """Return step, time and value of one key's points, straight from the cursor."""
    import numpy as np

    where = f"FROM {table} WHERE run = 1 AND key_id = ?"
    columns = [("step", "<i8"), ("time", "<f8"), ("value", "<f8")]

    def fetch(what: str) -> Any:
        cursor: Any = connection.connection.cursor()
        cursor.arraysize = FETCH
        cursor.execute(f"SELECT {what} {where} ORDER BY {order}", (key_id,))
        return np.fromiter(cursor, dtype=columns)

    first = connection.exec_driver_sql(f"SELECT typeof(value) {where} LIMIT 1", (key_id,)).scalar()
    if first == "integer" and not _holds_other_than_integers(connection, where, key_id):
        columns[-1] = ("value", "<i8")
    try:
        rows = fetch("step, time, value")
    except TypeError:  # a NULL, which stands for NaN: look for those, too
        columns.append(("is_nan", "?"))
        rows = fetch("step, time, coalesce(value, 0.0), value IS NULL")
        rows["value"][rows["is_nan"]] = np.nan
    step, time, value = (np.ascontiguousarray(rows[name]) for name in ("step", "time", "value"))
    return step, time, value


def _holds_other_than_integers(connection: Connection, where: str, key_id: int) -> bool:
    found = connection.exec_driver_sql(
        f"SELECT EXISTS (SELECT 1 {where} AND typeof(value) <> 'integer')", (key_id,)
    )
    return bool(found.scalar())


def overlay(folded: tuple[Any, Any, Any], new: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """Lay points in the order of their arrival over folded ones: the last of each step counts."""
    import numpy as np

    if not len(new[0]):
        return folded
    step: np.ndarray[Any, Any] = np.concatenate([folded[0], new[0]])
    order = np.argsort(step, kind="stable")
    step = step[order]
    keep = np.append(step[1:] != step[:-1], [True])
    # nothing folded has no dtype to mix in
    value = np.concatenate([folded[2], new[2]]) if len(folded[0]) else new[2]
    time = np.concatenate([folded[1], new[1]])
    return step[keep], time[order][keep], value[order][keep]
