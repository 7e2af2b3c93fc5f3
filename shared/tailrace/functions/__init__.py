"""Users' Python functions, each in a process of its own: killed when late, dead with its parent.

Called by the graders and by the verifiers of :mod:`tailrace.tasks`.
"""
