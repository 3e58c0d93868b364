"""Backups: which stragglers get a second attempt, and how many at once."""

import asyncio
from types import SimpleNamespace

from wren_backends.backups import Backups
from wren_backends.calls import Group, Invocation
from wren_backends.config import Config
from wren_backends.events import Journal


class Slow:
    """A schedule by whose measure whatever has been running for ten seconds is a straggler."""

    window = SimpleNamespace(size=64)
    asked = 0

    def __bool__(self):
        return False  # nothing waits

    def is_straggler(self, group, running_s, least_s):
        self.asked += 1
        return running_s >= 10


def backups_of(stragglers, *, backups_have_run_s):
    """How many of so many stragglers get a backup attempt, however often it looks; none of the attempts ends."""

    async def look():
        now = asyncio.get_running_loop().time()
        schedule, in_flight, started = Slow(), {}, []

        def send(group, begun, *, is_backup):
            in_flight[object()] = Invocation(group, group.attempt, 0, begun, is_backup)

        def start(group):
            started.append(group)
            send(group, now - backups_have_run_s, is_backup=True)

        for number in range(stragglers):
            call = SimpleNamespace(label=f"call {number}", seq=number, repeatable=True, enlarged=False)
            send(Group([call]), now - 10, is_backup=False)
        backups = Backups(Config(backup_after_s=0.01), schedule, in_flight, start, Journal())
        backups.mind()
        while schedule.asked < 500:  # each look asks about each backup, and about what has none
            await asyncio.sleep(0)
        backups.close()
        return len(started)

    return asyncio.run(look())


def test_a_tenth_of_the_slots_is_for_backups():
    assert backups_of(20, backups_have_run_s=0) == 6


def test_backups_that_are_stragglers_themselves_leave_room_for_others():
    assert backups_of(20, backups_have_run_s=10) == 20


def test_a_backup_takes_no_slot_that_is_not_free():
    assert backups_of(62, backups_have_run_s=10) == 2
