"""Graders: slow or unsure judges of an answer, each writing Feedback with ``source = "grader"``.

::

    prompts, outputs ──> pairing ──> functions (a child process) ──┐
        (one reader per grader)  └─> judges (an HTTP endpoint) ────┴─> cache ──> feedback

Each grader has a thread, a consumer group and a worker of its own, so a slow or dead one lags
alone; the join waits for its metric as long as the reward spec says and no longer. A feedback id is
made of interaction, choice, grader and the hash of what the grader is, and a grade is in the cache
before it is sent: an answer that is graded again after a crash gets the same record again, which
rewards settles as ``duplicate``.
"""
