"""What was learnt from, as files: Parquet, JSON lines, and what TRL's trainers load.

:mod:`.choice` says which trajectories, :mod:`.columns` and :mod:`.layouts` what is written of each,
:mod:`.pairs` which two answers are held against each other, :mod:`.shards` writes. Called by
:mod:`.command` for ``tailrace export``. Needs pyarrow (``tailrace[export]``), which is imported
where it is used.

Invariants: of an answer its newest revision alone, of a trajectory one row, whatever the log holds
twice; every trajectory that was read is a row or is counted under why it is none.
"""
