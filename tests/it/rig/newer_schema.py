"""Makes a database file look as if a newer release had migrated it: one more row in the migrator's table.

    newer_schema.py FILE
"""

import sqlite3
import sys

database = sqlite3.connect(sys.argv[1])
tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
(table,) = [name for name in tables if "migration" in name]
columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
# The name of the migration doesn't say that it is additive.
changed = {"version": "version + 1000000", "description": "'later things'"}
values = ", ".join(changed.get(column, column) for column in columns)
newest = f"(SELECT max(version) FROM {table})"
made = database.execute(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE version = {newest}").rowcount
database.commit()
assert made == 1, f"{made} rows added to {table}"
