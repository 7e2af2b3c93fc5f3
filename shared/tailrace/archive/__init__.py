"""Topics as files in any fsspec store, and back: byte for byte, verified, only what is new.

:mod:`.segment` is one file of records, :mod:`.shelf` the store and its manifest, :mod:`.saving`
writes, :mod:`.restoring` brings back. Called by :mod:`.command` for ``tailrace archive`` and
``tailrace restore``. Needs fsspec, which is imported where it is used.

Offsets are what receipts, Steps and manifests refer to, so a restored partition has each record at
its own offset. What lay between them is made again: control records by transactions, expired
records by void ones that are deleted at once, aborted transactions by aborted transactions. Where
none of these can be, a restore is refused before anything is written.
"""
