"""What a step minimises: objectives as pure functions of tensors, one value for each answer token.

    ratio            importance ratios of tokens and of whole answers
    policy_gradient  reinforce, ppo (with dual clip), cispo
    corrected        tis, tis_sequence, icepop, gspo, decoupled: for answers of older weights
    preference       dpo, kto, sft
    anchor           the divergence from the base model
    reduction        what each token counts for in its step
    choice           an objective by its name

Every objective takes, per answer token (letter T): its log-probability under the weights that are
trained, under the weights that sampled it (behaviour), the advantage of its answer and a mask (1:
counts); those of whole answers take which answer each token is of. They give the loss of each
token, unreduced, and where a bound was met: the caller weighs tokens by what the whole step has, so
micro-batches add up. Log-probabilities are nats. Called by :mod:`services.trainer.learner`; the
tests hold each against a slow reference and its gradient against its definition.
"""
