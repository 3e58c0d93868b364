"""What becomes of outcomes: they go to the resolver, or their call is sent anew in the hope of a better one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import CancelledError

from lambda_worker import codec
from lambda_worker.objects import ObjectStoreError
from lambda_worker.protocol import Bytes, Frame, Outcome, Payload, seq_when_sent_anew
from wren_backends.blobs import Blobs
from wren_backends.calls import Call, Group
from wren_backends.config import Config
from wren_backends.errors import StorageError, TamperedObjectError, WrenError
from wren_backends.events import Journal
from wren_backends.parcels import land
from wren_backends.ranges import Ranges
from wren_backends.resolver import Resolver
from wren_backends.schedule import Schedule


def attempts_at(group: Group, config: Config) -> int:
    """How many attempts at a group may end with their environment."""
    return config.max_attempts if group.repeatable else 1


class Delivery:
    """Delivers the outcomes of one job. It has to be used on one event loop.

    Args:
        config: Settings.
        journal: Is told what becomes of each call.
        schedule: Takes calls that are sent anew.
        blobs: The client's blobs.
        ended: Takes the numbers of calls that end without a value.
        resolver: Where outcomes go.
        fetch: Gives the content of a payload's parts; raises TamperedError, ObjectStoreError.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        schedule: Schedule,
        blobs: Blobs,
        ended: Ranges,
        resolver: Resolver,
        fetch: Callable[[Payload], Awaitable[list[Bytes]]],
    ) -> None:
        self._config = config
        self._journal = journal
        self._schedule = schedule
        self._blobs = blobs
        self._ended = ended
        self._resolver = resolver
        self._fetch = fetch

    async def deliver(self, group: Group, frame: Frame) -> None:
        """See to it that each call of a group that waits has its outcome, or is on its way again."""
        outcomes = {outcome.seq: outcome for outcome in frame.outcomes}
        for call in group.stranded:
            outcome = outcomes.get(call.seq)
            if outcome is None:
                # What is committed under this number is from an attempt with other company, or one that ran out of
                # time before this call's turn.
                self._schedule.add_again(Group([call], group.attempt + 1, group.deaths, enlarged=group.enlarged))
            elif outcome.kind == "value" or seq_when_sent_anew(call.seq) is None:
                await self._hand_over(call, outcome, frame)
            elif outcome.kind == "error" and call.retries_left > 0:
                call.retries_left -= 1
                self.send_anew(call, "call.retried")
            elif outcome.reason == "missing_blob" and self._can_send_again(call):
                self.send_anew(call, "call.sent_again")
            elif self._may_end_better(outcome, group):
                self.send_anew(call, "call.retried", deaths=group.deaths + 1, enlarged=group.enlarged)
            else:
                await self._hand_over(call, outcome, frame)

    def send_anew(self, call: Call, said: str, *, deaths: int = 0, enlarged: bool = False) -> None:
        """Send a call under another `seq`: what may be committed under the old one stands for good."""
        seq = seq_when_sent_anew(call.seq)
        assert seq is not None, "whoever calls this has asked"
        call.seq = seq
        self._journal.say(said, logging.INFO, call=call.label)
        self._schedule.add_again(Group([call], deaths=deaths, enlarged=enlarged))

    def fail(self, calls: Collection[Call], error: WrenError | CancelledError) -> None:
        """Have calls end in an error of our own; each gets one of its own."""
        for call in list(calls):
            call.group = None
            self._ended.add(call.number)
            self._journal.say("call.failed", call=call.label, error=type(error).__name__)
            self._resolver.fail(call, type(error)(*error.args))

    def _may_end_better(self, outcome: Outcome, group: Group) -> bool:
        """Whether what kept a call from its end may have passed when it is run again."""
        if group.deaths + 1 >= attempts_at(group, self._config):
            return False
        # A call that was stopped at the time limit may have begun late, after others of its group.
        late = outcome.reason == "time_limit" and (len(group.calls) > 1 or self._config.retry_exhausted)
        return late or outcome.reason == "storage"

    def _can_send_again(self, call: Call) -> bool:
        """Forget blobs that have vanished; whether all of them can be uploaded once more."""
        at_hand = all([self._blobs.forget(ref) for ref in call.blobs()])
        call.sent_again, before = True, call.sent_again
        return at_hand and not before

    async def _hand_over(self, call: Call, outcome: Outcome, frame: Frame) -> None:
        if outcome.reason == "tampered_blob":
            for ref in call.blobs():
                self._blobs.forget(ref, overwrite=True)
        apart = call.apart and outcome.kind == "value"
        try:
            parts = await self._fetch(outcome.payload[:1] if apart else outcome.payload)
        except codec.TamperedError as error:
            self.fail([call], TamperedObjectError(f"{call.label}: {error}. Somebody else writes to the bucket"))
        except ObjectStoreError as error:
            self.fail([call], StorageError(f"{call.label}: its result cannot be fetched: {error}"))
        else:
            call.group = None
            if outcome.kind != "value":
                self._ended.add(call.number)
            self._journal.say("call.finished", number=call.number, seq=call.seq, kind=outcome.kind)
            if apart:
                with_modules = call.modules is not None
                self._resolver.resolve(
                    call,
                    outcome,
                    parts,
                    frame,
                    lambda index: land(index, outcome, frame.environment_id, needs_modules=with_modules),
                )
            else:
                self._resolver.resolve(call, outcome, parts, frame)
