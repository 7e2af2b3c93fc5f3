"""Drift: watches every stream for change and says so on ``alarms``.

::

    outputs, feedback, trajectories ──> merge ──> streams ──> bank ──> alarms, metrics
                                                               └─> checkpoint in state_dir

What fires is a function of the log alone: :mod:`.merge` puts the records of all partitions in one
order that does not depend on how they were fetched, and :mod:`.state` brings the detectors back
after a crash exactly as they were. An alarm may be written twice after a kill; its stream,
detector, state and source coordinates are then the same.
"""
