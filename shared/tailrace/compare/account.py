"""What there is under one prefix, as far as two are held against each other. Pure but for
:func:`read`."""

from __future__ import annotations

from collections import Counter

import msgspec

from tailrace import ids, topics
from tailrace.errors import InvalidRecord, MissingTopic
from tailrace.events import Alarm, ModelUpdate, Receipt, Step, Struct, Trajectory
from tailrace.log.base import Log
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.wire import Wire

READ = (topics.TRAJECTORIES, topics.RECEIPTS, topics.ALARMS, topics.MODEL_UPDATES, topics.STEPS)


class Answer(msgspec.Struct, frozen=True):
    """The newest revision of an answer."""

    revision: int
    reward: float | None
    terms: dict[str, float | None]
    versions: tuple[int | None, ...]
    """That sampled it."""


class Account:
    """What was read of one prefix. ``since_ms`` and ``until_ms``: interactions that began then."""

    def __init__(self, since_ms: int | None = None, until_ms: int | None = None) -> None:
        self._since_ms, self._until_ms = since_ms, until_ms
        bounded = since_ms is not None or until_ms is not None
        self._counted: set[str] | None = set() if bounded else None
        """Ids of the trajectories of those interactions; None: all count."""
        self.answers: dict[str, Answer] = {}
        """By ``<interaction>/<choice>``."""
        self._feedback: dict[str, dict[tuple[int, int], str]] = {}
        """Outcomes by feedback id and place."""
        self._trained: dict[str, tuple[int, str]] = {}
        """Version and outcome by trajectory id."""
        self.alarms: Counter[str] = Counter()
        """That fired, by ``stream/detector``."""
        self.versions: dict[int, str | None] = {}
        """Digest by number: the newest of that number."""
        self.steps = 0

    def take(self, record: Struct, model: str) -> None:
        """One record of :data:`READ`, in that order: by a trajectory it is known whether what a
        trainer says of it counts."""
        match record:
            case Trajectory() if self._within(record.interaction_id):
                if self._counted is not None:
                    self._counted.add(record.trajectory_id)
                name = ids.answer(record.interaction_id, record.choice)
                known = self.answers.get(name)
                if known is None or known.revision < record.revision:
                    self.answers[name] = Answer(
                        record.revision,
                        record.reward,
                        {each.name: each.value for each in record.components},
                        tuple(dict.fromkeys(span.version for span in record.weight_versions)),
                    )
            case Receipt(stage="rewards") if self._within(record.subject_id.partition("!")[0]):
                place = (record.source.partition, record.source.offset)
                self._feedback.setdefault(record.subject_id, {})[place] = record.outcome
            case Receipt(stage="trainer") if record.model in (None, model):
                if self._counted is not None and record.subject_id not in self._counted:
                    return
                if record.outcome == "duplicate" or not record.subject_id:
                    return  # of what was decided before, under this id; of what could not be read
                version = -1 if record.version is None else record.version
                if version >= self._trained.get(record.subject_id, (-1, ""))[0]:
                    self._trained[record.subject_id] = (version, record.outcome)
            case Alarm(state="fired"):
                self.alarms[f"{record.stream}/{record.detector or '-'}"] += 1
            case ModelUpdate() if record.model == model and record.kind != "adapter":
                self.versions[record.version] = record.digest
            case Step() if record.model == model:
                self.steps += 1

    @property
    def feedback(self) -> dict[tuple[str, int], str]:
        """Outcome of each feedback record, by its id and which of that id it is: offsets of a copy
        are others, their order is not."""
        return {
            (name, number): outcomes[place]
            for name, outcomes in self._feedback.items()
            for number, place in enumerate(sorted(outcomes))
        }

    @property
    def trained(self) -> dict[str, str]:
        """The trainer's newest outcome by trajectory."""
        return {name: outcome for name, (_, outcome) in self._trained.items()}

    def _within(self, interaction: str) -> bool:
        if self._since_ms is None and self._until_ms is None:
            return True
        try:
            time_ms = ids.turn_time_ms(interaction)
        except ValueError:
            return False  # of a session, or of nothing that can be read
        return (self._since_ms is None or time_ms >= self._since_ms) and (
            self._until_ms is None or time_ms < self._until_ms
        )


def read(
    log: Log,
    prefix: str,
    model: str,
    *,
    registry: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> Account:
    """All there is under a prefix now. Raises ValueError where there is nothing, LogError."""
    account = Account(since_ms, until_ms)
    decoder = Decoder(log, Wire(registry), prefix=prefix)
    for topic in READ:
        name = named(topic, prefix)
        try:
            ends = log.ends(name)
        except MissingTopic:
            if topic is topics.TRAJECTORIES:
                raise ValueError(f"there is no prefix {prefix!r}: {name} is not there") from None
            continue
        for record in read_all(log, name, ends=ends, committed_only=topic.transactional):
            try:
                account.take(decoder.decode(record), model)
            except InvalidRecord:
                continue  # the audit says so
    return account
