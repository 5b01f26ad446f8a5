"""Artifacts: named, versioned sets of files; kept by content, without a server.

Nothing that several processes write is shared: a version is a small file that is created exclusively and
never changed, an alias is a file that is replaced by rename, content lies once by its SHA-256.  What lies
where is told in `catalog`.
"""
