"""What differs between two prefixes: rewards, outcomes, alarms, versions, with intervals.

:mod:`.account` is what there is of one, :mod:`.comparison` holds two against each other,
:mod:`.estimate` has the intervals. Called by :mod:`.command` for ``tailrace compare P Q``.
"""
