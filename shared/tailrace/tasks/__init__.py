"""Private benchmarks: folders with tasks and a verifier, to train on and to be measured by.

``services.rollouts`` samples the ``train`` half of one, ``tailrace eval`` measures a version on the
``heldout`` half; both score answers by :mod:`.scoring`. ``docs/rollouts.md`` has the folder's form.
"""
