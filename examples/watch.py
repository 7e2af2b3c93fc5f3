"""Watch a system: each answer with its weight versions, each alarm.

python examples/watch.py 127.0.0.1:9092 outputs
"""

import sys

import tailrace

for record, event in tailrace.read(sys.argv[2], kafka=sys.argv[1], follow=True):
    if isinstance(event, tailrace.InvalidRecord):
        print(record.partition, record.offset, "cannot be read:", event)
    elif isinstance(event, tailrace.events.Output):
        versions = [span.version for span in event.weight_versions]
        print(event.interaction_id, event.finish_reason, "under versions", versions)
    else:
        print(event)
