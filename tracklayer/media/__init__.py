"""Images, tables, sound and the other kinds of value that take files: one module a kind.

Each is a snapshot when it is made or logged, and is encoded later, on the encoder's thread.
"""
