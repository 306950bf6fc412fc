"""The embedded database: SQLite in write-ahead mode, by the standard library's `sqlite3`.

`connections` opens the file with settings that keep promise P1, `snapshot` reads and writes records,
`lock` takes turns with other processes, `committer` shares commits, `store` puts them together.
"""
