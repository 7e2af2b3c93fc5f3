"""Weights as they travel: tensors, their digest, the byte stream of an update, and both its ends.

    folder ── read ──> Tensors ── codec ──> stream ── Publisher ──> model-chunks, model-updates
                          ^                                               │
                          └── Store <── codec <── stream <── Subscriber <─┘

:mod:`.tensors` (what a model is and its digest), :mod:`.folder` (safetensors), :mod:`.codec` (the
stream), :mod:`.publisher` (trainer's end), :mod:`.subscriber` and :mod:`.store` (engine's end). No
torch anywhere: bits are numpy integers. The parts are imported by name, so nothing here loads numpy
by itself.
"""
