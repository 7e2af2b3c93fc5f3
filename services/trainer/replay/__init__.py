"""``tailrace replay --train``: a stretch of a model's history trained again, under a prefix of its
own.

    where the state at V comes from    checkpoint, beginning or reseeded step       (origin)
      │ the Steps up to V once more: every digest must be the published one         (course)
      v
    version V ── the Steps up to W, all of them or without somebody's answers       (absence)
      │          each version published under the private prefix                    (edition)
      v
    version W here, held against the published one                                  (difference)

The whole is :mod:`.retraining`. The original prefix is read and never written to; a trainer that
runs there notices nothing.
"""
