"""Replay an hour: would the rewards have been different had silence counted as approval?

python examples/replay.py 127.0.0.1:9092
"""

import statistics
import sys

import tailrace

judged, assumed = [], []
for _, event in tailrace.read("trajectories", kafka=sys.argv[1], since="1h"):
    if isinstance(event, tailrace.events.Trajectory):
        assumed.append(1.0 if event.reward is None else event.reward)
        if event.reward is not None:
            judged.append(event.reward)
if judged:
    print(f"{len(judged)} judged answers, mean reward {statistics.mean(judged):.3f}")
    print(f"{len(assumed)} answers, silence as approval {statistics.mean(assumed):.3f}")
