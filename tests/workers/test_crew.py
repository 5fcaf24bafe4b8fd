"""The loop that gives units to workers, with workers that are threads here, and die when they are told to."""

import pickle
import random
import warnings
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest

from whyprompt._workers import crew as crew_module
from whyprompt._workers import seat
from whyprompt._workers.crew import Crew
from whyprompt._workers.place import map_units, part_sizes, workers
from whyprompt._workers.queue import Queue
from whyprompt._workers.seat import Seat, versions
from whyprompt.errors import DataError, InputError, WhypromptError


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch):
    """A worker's share of the processors would stay with this process, which plays the workers."""
    monkeypatch.setattr(seat, "_share", [])


class GoneError(Exception):
    """What a thread raises that plays a dead process."""


@dataclass(frozen=True)
class Squares:
    """The work of the tests."""

    fails_at: int = -1

    @contextmanager
    def opened(self):
        def do(n):
            if n == self.fails_at:
                raise DataError("a bad unit", hint="mend it")
            if n == 100:
                warnings.warn("a hundred", stacklevel=1)
            return n * n

        yield do


class Thread:
    def __init__(self, place, dies):
        self.place, self.dies, self.seat = place, dies, Seat()
        self.pool, self.said = ThreadPoolExecutor(1), Future()
        self.most = self.waiting = 0

    def open(self, digest, sent, wanted):
        return self._submit(lambda: self.seat.open(digest, sent, wanted, "a thread", 1))

    def do(self, digest, unit):
        return self._submit(lambda: self._done(digest, unit))

    def _done(self, digest, unit):
        if self.dies(self.place, pickle.loads(unit)):  # noqa: S301
            self.pool.shutdown(wait=False, cancel_futures=False)
            raise GoneError("killed")
        return self.seat.do(digest, unit)

    def _submit(self, call):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            future = self.pool.submit(call)
        except RuntimeError:  # shut down
            future = Future()
            future.set_exception(GoneError("killed before"))
        future.add_done_callback(lambda _: setattr(self, "waiting", self.waiting - 1))
        return future

    def hear(self):
        return self.said

    def end(self):
        self.pool.shutdown(wait=True)
        if not self.said.done():
            self.said.set_exception(GoneError("it says nothing more"))


class Threads:
    lost = (GoneError,)
    needs = "a thread"

    def __init__(self, count, dies=lambda *_: False):
        self.count, self.dies, self.hired, self.sent = count, dies, [], 0

    def send(self, blob):
        self.sent += 1
        return blob

    def hire(self, place):
        self.hired.append(Thread(place, self.dies))
        return self.hired[-1]

    def end(self):
        pass


def mapped(backend, work, units, **options):
    crew = Crew(backend)
    try:
        n = len(units)
        yield from crew.map(work, units, options.get("cost", [1.0] * n), options.get("alike", [None] * n))
    finally:
        crew.end()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_unit_is_done_once_whatever_the_number_of_workers(count):
    backend = Threads(count)
    found = list(mapped(backend, Squares(), list(range(40))))
    assert sorted(found) == [(n, n * n) for n in range(40)]
    assert len(backend.hired) == count
    # What opens the work counts too, before the first unit is in hand.
    assert max(t.most for t in backend.hired) <= 2


def test_no_more_workers_are_hired_than_there_are_units():
    backend = Threads(8)
    assert list(mapped(backend, Squares(), [3])) == [(0, 9)]
    assert len(backend.hired) == 1


def test_a_lost_worker_costs_what_it_had_in_hand_and_nothing_else():
    died = Counter()

    def dies(_, n):
        died[n] += 1
        return n in {7, 19, 33} and died[n] == 1

    backend = Threads(2, dies)
    assert sorted(mapped(backend, Squares(), list(range(40)))) == [(n, n * n) for n in range(40)]
    assert len(backend.hired) == 5
    # Those in hand beside it are done again at most once each.
    assert set(died.values()) <= {1, 2}


def test_a_unit_that_ends_its_worker_again_and_again_is_given_up():
    died = []

    def dies(_, n):
        died.extend([n] * (n == 5))
        return n == 5

    backend = Threads(2, dies)
    with pytest.raises(
        WhypromptError, match=r"a worker ended 3 times over the same unit \(5\): killed"
    ) as error:
        list(mapped(backend, Squares(), list(range(9))))
    assert error.value.exit_code == 1
    assert len(died) == 3


class Opening(Threads):
    """Threads that die as often as they are told to while they open the work."""

    def __init__(self, left):
        super().__init__(1)
        self.left = left

    def hire(self, place):
        made = super().hire(place)
        if self.left:
            self.left -= 1
            made.pool.shutdown()
        return made


def test_a_worker_that_ends_while_it_gets_ready_is_started_again_three_times_in_all():
    backend = Opening(2)
    assert list(mapped(backend, Squares(), [3])) == [(0, 9)]
    assert len(backend.hired) == 3
    backend = Opening(9)
    with pytest.raises(WhypromptError, match="ended 3 times while it got ready: killed before"):
        list(mapped(backend, Squares(), [3]))
    assert len(backend.hired) == 3


def test_losses_of_a_worker_that_was_ready_between_are_not_added_up():
    backend, died = Opening(2), []

    def dies(_, n):
        died.append(n)
        # Ready once: then it goes over a unit, and its next two are gone before they are ready.
        backend.left = 2 * (len(died) == 1)
        return len(died) == 1

    backend.dies = dies
    crew = Crew(backend)
    assert list(crew.map(Squares(), [3], [1.0], [None])) == [(0, 9)]
    assert len(backend.hired) == 6
    crew.end()


def test_an_error_of_a_unit_is_raised_as_it_is_and_a_warning_is_handed_on():
    with pytest.raises(DataError) as error:
        list(mapped(Threads(2), Squares(fails_at=4), list(range(9))))
    assert (error.value.message, error.value.hint, error.value.exit_code) == ("a bad unit", "mend it", 2)
    with pytest.warns(UserWarning, match="a hundred"):
        list(mapped(Threads(2), Squares(), [1, 100]))


def test_a_work_that_cannot_be_sent_is_refused_with_what_it_is():
    work = Squares(fails_at=lambda: 0)
    with pytest.raises(InputError, match=r"this cannot be sent to workers: .*lambda"):
        list(mapped(Threads(1), work, [1]))


def test_a_worker_of_another_version_is_refused_by_name(monkeypatch):
    other = {**versions(), "whyprompt": "9.9 (feedbeef)", "torch": "1.0"}
    monkeypatch.setattr(crew_module, "versions", lambda: other)
    with pytest.raises(
        InputError, match=r"the worker on a thread has whyprompt .*, not 9\.9 \(feedbeef\); torch"
    ):
        list(mapped(Threads(1), Squares(), [1]))


def test_a_work_that_comes_back_is_not_sent_or_opened_again():
    backend = Threads(1)
    crew = Crew(backend)
    for _ in range(3):
        assert list(crew.map(Squares(), [2], [1.0], [None])) == [(0, 4)]
    crew.end()
    assert (len(backend.hired), backend.sent) == (1, 1)


def test_a_work_of_fewer_units_than_workers_is_given_to_those_that_opened_it():
    crew = Crew(Threads(3))
    assert len(list(crew.map(Squares(), list(range(9)), [1.0] * 9, [None] * 9))) == 9
    other = Squares(fails_at=99)
    assert sorted(crew.map(other, [2, 3], [1.0] * 2, [None] * 2)) == [(0, 4), (1, 9)]
    crew.end()


def test_units_alike_stay_with_one_worker():
    kinds = [k for k in "abcdef" for _ in range(10)]
    queue = Queue([1.0] * 60, kinds, {})
    had = {0: [], 1: []}
    while len(queue):
        for worker, own in had.items():
            own.append(kinds[queue.take(worker)])
    changes = sum(a != b for own in had.values() for a, b in pairwise(own))
    assert changes == 4, "each does three kinds, one after the other"


def test_the_kind_that_costs_most_is_begun_first_and_the_one_with_most_left_is_helped_with():
    kinds = ["a", "b", "b", "c", "c", "c"]
    queue = Queue([1.0, 1.0, 3.0, 1.0, 1.0, 1.0], kinds, {})
    # Kinds of their own by what they cost in all: 4, 3 and 1.
    assert [kinds[queue.take(worker)] for worker in (0, 1, 2)] == ["b", "c", "a"]
    # What was taken of a kind no longer counts.
    queue = Queue([5.0, 1.0, 1.0, 2.0], ["a", "a", "b", "b"], {})
    assert [queue.take(worker) for worker in (0, 1, 2)] == [0, 2, 3]


def test_a_worker_comes_back_to_the_kinds_that_it_had_before():
    owners = {}
    for _ in range(2):
        queue, had = Queue([1.0] * 4, list("abcd"), owners), {}
        for worker in (0, 1, 1, 0):
            had.setdefault(worker, set()).add("abcd"[queue.take(worker)])
    assert had[0] == {k for k, w in owners.items() if w == 0}


def replayed(cost, alike, workers_):
    """Give the share of their time for which so many workers are busy, by the queue that runs them."""
    queue = Queue(cost, alike, {})
    free = [0.0] * workers_
    while len(queue):
        worker = min(range(workers_), key=lambda w: free[w])
        free[worker] += cost[queue.take(worker)]
    return sum(cost) / (workers_ * max(free))


def test_64_workers_are_busy_for_nine_tenths_of_their_time():
    rng = random.Random(0)  # noqa: S311
    cost = [rng.uniform(0.6, 1.4) for _ in range(640)]
    alike = [n // 50 for n in range(640)]
    assert replayed(cost, alike, 64) > 0.9
    assert replayed(cost, alike, 1) == pytest.approx(1.0)


def test_parts_are_all_of_the_draws_and_depend_on_their_number_alone():
    for count in (1, 2, 639, 640, 641, 5_000):
        sizes = part_sizes(count)
        assert (sum(sizes), len(sizes)) == (count, min(count, 640))
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("on", "options", "match"),
    [
        ("processes", {"count": 0}, "0 workers do no work"),
        ("mars", {}, "work cannot be done on 'mars'"),
        ("processes", {"gpus_per_worker": -1}, "no fewer than 0 GPUs"),
        ("processes", {"count": 1, "gpus_per_worker": 9}, "this machine shows"),
    ],
)
def test_workers_that_cannot_be_are_refused_before_anything_starts(on, options, match):
    with pytest.raises(InputError, match=match), workers(on, **options):
        pass


def test_outside_of_a_block_units_are_done_in_their_order():
    assert list(map_units(Squares(), [3, 1, 2])) == [(0, 9), (1, 1), (2, 4)]
