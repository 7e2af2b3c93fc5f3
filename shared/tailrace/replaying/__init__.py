"""A stretch of the log written again under another prefix, in original time.

:mod:`.stretch` says which records, :mod:`.plan` holds that in the target prefix, :mod:`.filters`
says whose, :mod:`.merge` reads them in the order of their time, :mod:`.replayer` writes them.
Called by :mod:`tailrace.replay` for ``tailrace replay --to-prefix``.

    plan = planned(log, "", now_ms=now_ms, since="1d")
    begin(log, "replay-1.", plan)
    copy_schemas(log, "", "replay-1.")
    counts = Replayer(log, plan, "replay-1.").run()

Invariants: a copied record is the original's key, value and headers in the original's partition,
and headers that say when it was appended first, where it lay, and its number.
Of one partition the order is kept. A tick's ends are moved to where the same records lie in the
target. So what rewards make of a replay depends on the stretch alone.
"""
