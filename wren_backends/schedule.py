"""What is sent next, and how much at once: the queue of one job. No I/O; it belongs to the event loop's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from wren_backends.calls import Call, Group, event_size
from wren_backends.retry import Durations, Window, calls_to_carry

_REMEMBERED_KINDS = 4096


class Schedule:
    """Waiting calls, groups that travel again, the window, and what is known of durations.

    Args:
        max_workers: Most invocations in flight.
        calls_per_invocation: Most calls of a group.
        event_bytes: Most inline bytes of an event.
        on_cancelled: Is told of each call that was cancelled while it waited, when it would have gone.
    """

    def __init__(
        self,
        max_workers: int,
        calls_per_invocation: int,
        event_bytes: int,
        on_cancelled: Callable[[Call], None] = lambda call: None,
    ) -> None:
        self.window = Window(max_workers)
        self._most = calls_per_invocation
        self._event_bytes = event_bytes
        self._on_cancelled = on_cancelled
        self._waiting: deque[Call] = deque()
        self._again: deque[Group] = deque()
        self._durations: dict[str, Durations] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    def add(self, call: Call) -> None:
        """Queue a call."""
        self._waiting.append(call)

    def add_again(self, group: Group) -> None:
        """Have a group travel next; it goes before all calls that were never sent."""
        self._again.append(group)

    def split(self, group: Group, attempt: int, deaths: int) -> None:
        """Have a group's calls travel again, each alone."""
        self._again.extend(Group([call], attempt, deaths) for call in group.calls)

    def next_group(self, in_flight: int) -> Group | None:
        """What to send now, if anything may be; its calls are RUNNING from here on.

        Args:
            in_flight: Invocations in flight.
        """
        if in_flight >= self.window.size:
            return None
        if self._again:
            return self._again.popleft()
        first = self._next_call()
        if first is None:
            return None
        most = self._group_size(first, in_flight)
        calls, sent = [first], {first.function.key}
        room = self._event_bytes - first.size - _function_size(first)
        while len(calls) < most and self._waiting and first.fits_with(self._waiting[0]):
            head = self._waiting[0]
            room -= head.size + (0 if head.function.key in sent else _function_size(head))
            if room < 0:
                break
            if self._start(self._waiting.popleft()):
                calls.append(head)
                sent.add(head.function.key)
        self._known(first.kind).started += 1
        return Group(calls)

    def _group_size(self, first: Call, in_flight: int) -> int:
        known = self._known(first.kind)
        size = self.window.size
        return calls_to_carry(len(self._waiting) + 1, size - in_flight, size, self._most, known)

    def _next_call(self) -> Call | None:
        while self._waiting:
            call = self._waiting.popleft()
            if self._start(call):
                return call
        return None

    def _start(self, call: Call) -> bool:
        """Make a call RUNNING, unless it was cancelled."""
        started = bool(call.future.set_running_or_notify_cancel())
        if not started:
            self._on_cancelled(call)
        return started

    def learn(self, group: Group, seconds: Collection[float], took_s: float) -> None:
        """An invocation is over.

        Args:
            group: What it carried.
            seconds: How long each of its calls took in the worker.
            took_s: From sending its event to having its outcomes.
        """
        self._known(group.calls[0].kind).learn(seconds, took_s)

    def is_straggler(self, group: Group, running_s: float, least_s: float) -> bool:
        """Whether a group takes so much longer than others of its kind that a backup attempt is worth it.

        Args:
            group: It was sent once.
            running_s: For how long it has been running.
            least_s: For how long it has to have been running at least.
        """
        return running_s >= least_s and self._known(group.calls[0].kind).is_straggler(running_s)

    def _known(self, kind: str) -> Durations:
        found = self._durations.get(kind)
        if found is None:
            found = self._durations[kind] = Durations()
            if len(self._durations) > _REMEMBERED_KINDS:
                del self._durations[next(iter(self._durations))]
        return found

    def reserve(self, size: int) -> None:
        """Leave room for `size` bytes in every event."""
        self._event_bytes -= size

    def clear_again(self) -> list[Group]:
        """Take out the groups that were to travel again."""
        taken, self._again = list(self._again), deque()
        return taken

    def clear(self) -> list[Call]:
        """Take out every call that was never sent."""
        taken, self._waiting = list(self._waiting), deque()
        return taken

    def withdraw(self, unwanted: Callable[[Group], bool]) -> list[Group]:
        """Take out those of the groups that would travel again for which `unwanted` is true."""
        withdrawn: list[Group] = []
        kept: deque[Group] = deque()
        for group in self._again:
            (withdrawn if unwanted(group) else kept).append(group)
        self._again = kept
        return withdrawn


def again(group: Group, **changes: Any) -> Group:
    """The same calls, for another attempt."""
    return replace(group, **changes)


def _function_size(call: Call) -> int:
    return event_size(call.function.payload)
