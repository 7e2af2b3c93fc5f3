"""Every new version of the model, verified, as numpy arrays.

python examples/follow_updates.py 127.0.0.1:9092
"""

import sys

import tailrace

with tailrace.ModelUpdates(sys.argv[1], model="smollm2-135m-instruct") as updates:
    for update in updates:
        weights = sum(tensor.numpy().size for tensor in update.tensors.values())
        print(update.version, update.manifest.kind, f"{weights / 1e6:.0f}M weights")
