"""The database of several nodes: PostgreSQL 15 or later, by psycopg.

`connections` opens connections with settings that keep promise P1, `lineage` notices that another
server answers, `pool` lends connections, `snapshot` reads and writes records, `committer` runs a work
until its commit's result is known, `store` puts them together.
"""
