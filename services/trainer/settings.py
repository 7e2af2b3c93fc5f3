"""What the trainer can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from services.trainer.objectives.names import Estimator, Normalisation, Rewarded
from tailrace.settings import Common

Positive = Annotated[int, msgspec.Meta(ge=1)]
Decay = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0.0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]
AtLeastOne = Annotated[float, msgspec.Meta(ge=1.0)]


class Settings(Common, frozen=True, kw_only=True):
    """Table ``[trainer]``, variables ``TAILRACE_TRAINER_*``."""

    model_dir: Path | None = None
    """Hugging Face folder of version 0, bfloat16 safetensors. Required."""
    device: str = "cpu"
    """torch device that holds the model and its optimizer."""
    compute: Literal["bfloat16", "float32"] = "bfloat16"
    """What forward and backward passes compute in, on the same bfloat16 weights; ``float32`` is
    many times faster on a processor that cannot multiply bfloat16. Part of what makes a replay end
    on the same bits."""
    threads: Positive = 1
    """Threads of torch; part of what makes a replay end on the same bits."""
    seed: int = 0
    """Seed of step n is this plus n."""

    objective: Rewarded = "cispo"
    """The loss of fresh answers; see :mod:`services.trainer.objectives`."""
    corrected_objective: Rewarded = "tis"
    """That of older answers, and of fresh ones while training has left what samples them."""
    old_objective: Rewarded = "kto"
    """That of the oldest answers."""
    normalisation: Normalisation = "token"
    """What counts alike in a step: every token, every answer (``sequence``), or every token at 1 /
    answers (``batch``)."""
    clip_low: Share = 0.2
    """PPO, decoupled: ratios below 1 minus this earn nothing more."""
    clip_high: PositiveFloat = 0.28
    """PPO, decoupled: the same above 1 plus this."""
    dual_clip: AtLeastOne = 3.0
    """PPO: a negative advantage counts at most so many times, however likely its token has
    become."""
    ratio_max: PositiveFloat = 3.0
    """CISPO: importance ratios are truncated here."""
    tis_max: PositiveFloat = 2.0
    """Truncated importance sampling: the ratio of a token, or of a whole answer, is at most
    this."""
    icepop_min: PositiveFloat = 0.5
    """IcePop: tokens with a smaller ratio are left out."""
    icepop_max: PositiveFloat = 5.0
    """IcePop: tokens with a larger one too."""
    gspo_low: Share = 3e-4
    """GSPO: mean ratios of an answer below 1 minus this earn nothing more."""
    gspo_high: PositiveFloat = 4e-4
    """GSPO: the same above 1 plus this."""
    proximal_max: PositiveFloat = 5.0
    """Decoupled: tokens whose proximal policy is so many times likelier than what sampled them are
    left out."""
    dpo_beta: PositiveFloat = 0.1
    """DPO: how soon a won preference pulls no more; larger is sooner."""
    kto_beta: PositiveFloat = 0.1
    """KTO: the same of a like."""
    kl_coefficient: NotNegative = 0.0
    """Weight of the divergence from version 0 in the loss. Above 0 every step computes it too, and
    its weights are held a second time, unless an adapter is trained: it lies on them."""
    kl_estimator: Estimator = "k2"
    """How that divergence is estimated; see :mod:`services.trainer.objectives.anchor`."""
    lr: PositiveFloat = 2e-5
    """AdamW's learning rate; constant."""
    beta1: Decay = 0.9
    """AdamW's first-moment decay."""
    beta2: Decay = 0.95
    """AdamW's second-moment decay: short, because a live stream does not stand still."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients with a longer norm are scaled down to it."""
    baseline: Literal["slice", "global", "regression"] = "slice"
    """What reward is expected of an answer: the moving mean of its slice (its task), of all
    answers, or its slice's with a regression on the prompt."""
    baseline_decay: Share = 0.9
    """Weight of the past in a moving mean, per step."""
    group_baseline: bool = True
    """Of answers of one group in one step, what the others of it earned is expected instead."""
    negative_weight: Share = 1.0
    """Factor on negative advantages. Below 1 the policy is pulled to what was liked more than
    pushed from what was not."""

    batch_answers: Positive = 48
    """Answers of one optimizer step."""
    batch_wait_s: PositiveFloat = 30.0
    """A smaller batch is trained when its oldest answer has waited this long."""
    min_answers: Positive = 8
    """Smaller batches than this wait on; at a drain 2 are enough."""
    micro_answers: Positive = 64
    """Answers of one forward pass at most."""
    micro_tokens: Positive = 4096
    """Tokens of one forward pass at most, each that several answers share counted once, unless one
    answer alone has more."""
    activation_checkpointing: bool = False
    """Make the states within a layer again in the backward pass instead of keeping them: the same
    bits, in much less memory and a third more time."""
    lora_rank: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rank of a LoRA adapter that is trained in place of the weights; 0: all weights are. An
    adapter wants an ``lr`` some ten times as high."""
    lora_alpha: PositiveFloat = 16.0
    """The adapter counts times this over its rank."""
    lora_modules: tuple[str, ...] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    """Names, or ends of names, of the linear layers that have one."""
    max_tokens: Positive = 2048
    """Longer prompts and answers together are ``untrainable: too_long``."""
    max_reward: PositiveFloat = 1e3
    """Rewards further from 0 are ``untrainable: reward``: one of them would outweigh its whole
    batch, and its slice's mean for many steps, or leave no finite gradient."""
    fresh_versions: Annotated[int, msgspec.Meta(ge=0)] = 8
    """An answer is fresh while its oldest token is at most so many weight changes behind the newest
    version."""
    corrected_versions: Annotated[int, msgspec.Meta(ge=0)] = 32
    """Up to so many it is trained by ``corrected_objective``, after that by ``old_objective``."""
    max_age_versions: Positive = 64
    """More weight changes behind, it is ``stale: age``. A demonstration does not age."""
    min_ess: Share = 0.3
    """While the last step's effective sample size was below this share of its tokens, answers are
    trained as if they were of the next older kind."""
    max_mismatch_kl: PositiveFloat = 0.5
    """The same while its divergence between sampling and training was above this, nats a token."""
    pairs: bool = True
    """Train two answers to one prompt, one of which was preferred, as a pair (DPO); a preferred one
    whose rival cannot be trained on by KTO. Else each by its reward."""
    compensation_max: NotNegative = 2.0
    """A revised reward of an answer that was trained already is trained as the difference, at most
    this in either direction; 0: it is ``filtered: already_trained``."""
    max_held: Positive = 2048
    """Usable answers that may wait; beyond, the oldest are ``stale: backlog``."""
    horizon_s: PositiveFloat = 7 * 86400.0
    """Log time over which trajectory ids are remembered; what closed before it is ``stale``."""

    alarm_steps: Positive = 10
    """An alarm of a figure fires, and clears, when so many steps in a row say so."""
    entropy_floor: NotNegative = 0.05
    """Nats per token; below it ``entropy_collapse`` fires."""
    mismatch_growth: AtLeastOne = 5.0
    """``mismatch_growth`` fires when the mismatch is so many times its own long mean."""
    peak_tflops: PositiveFloat | None = None
    """What a device can do at most, in 1e12 operations per second; with it the figure ``mfu``
    says what share of that, over all processes, is used."""

    publish_steps: Positive = 1
    """Optimizer steps of one version."""
    keyframe_versions: Positive = 50
    """A whole model instead of a delta every so many versions."""
    keyframe_store: str | None = None
    """Where keyframes go instead of the log: ``file:///...``, ``s3://...`` or any other url of
    fsspec; a folder for this system alone, in which old ones are deleted. Whoever reads updates
    must reach it."""
    signing_key: Path | None = None
    """File of a private key (``tailrace keys new``) that signs every version."""
    unsigned_to: int | None = None
    """With a key, on a log on which nothing is signed yet: the version up to which it is the
    trainer's own history all the same; -1: none of it is. Not looked at once a version is
    signed."""
    account_s: PositiveFloat = 60.0
    """Decisions that waited this long are published even when nothing was trained."""
    account_records: Positive = 50_000
    """So are this many: a version's are one transaction, which a broker ends where it takes too
    long."""
    checkpoint_versions: Positive = 20
    """Versions between two checkpoints: the most that a restart has to train again."""
    checkpoints_kept: Positive = 2
    """Checkpoints on disk; the one before the newest is for when that one cannot be read."""
    replay_steps: int = 100
    """Replay at most so many steps after a restart; where the checkpoint is further behind, go on
    from the published weights (``reseeded``)."""

    @property
    def own_dir(self) -> Path:
        """Where this trainer keeps its checkpoints, by the name under which it writes the log: two
        trainers that do not fence each other do not share one."""
        return self.state_dir / "trainer" / f"{self.prefix}tailrace.{self.model}"
