"""Run several functions concurrently, exactly one at a time: at every effect a schedule decides which one continues."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.counted_effects import Crash, Effects


@dataclass
class Actor:
    """`act` runs in a thread of its own, once `may_start` says so."""

    act: Callable[[], Any]
    may_start: Callable[[], object] = lambda: True


class Stage:
    """Plays actors by a list of choices, or by dice. Afterwards `made` has what was chosen, as (choice, of how many).

    At each decision the choices are those who can go on: first the one that ran last, then the others in order. Where
    the list ends, the first is taken.
    """

    def __init__(self, effects: Effects, actors: list[Actor]) -> None:
        self._effects, self._actors = effects, actors
        self._turns = [threading.Semaphore(0) for _ in actors]
        self._back = threading.Semaphore(0)
        self._ended: set[int] = set()
        self._threads: dict[int, threading.Thread] = {}
        self._errors: list[BaseException] = []
        self.made: list[tuple[int, int]] = []

    def play(self, choices: list[int] | random.Random) -> None:
        self._effects.pause = self._pause
        last: int | None = None
        while able := [place for place in self._order(last) if self._able(place)]:
            if isinstance(choices, random.Random):
                chosen = choices.randrange(len(able))
            else:
                chosen = choices[len(self.made)] if len(self.made) < len(choices) else 0
            self.made.append((chosen, len(able)))
            last = able[chosen]
            if last not in self._threads:
                self._threads[last] = threading.Thread(target=self._run, args=(last,), name=str(last), daemon=True)
                self._threads[last].start()
            self._turns[last].release()
            assert self._back.acquire(timeout=20), "an actor did not come back"
        self._effects.pause = lambda name: None
        if self._errors:
            raise self._errors[0]

    def _order(self, last: int | None) -> list[int]:
        return sorted(range(len(self._actors)), key=lambda place: (place != last, place))

    def _able(self, place: int) -> bool:
        return place not in self._ended and (place in self._threads or bool(self._actors[place].may_start()))

    def _run(self, place: int) -> None:
        self._turns[place].acquire()
        try:
            self._actors[place].act()
        except Crash:
            pass
        except BaseException as exc:
            self._errors.append(exc)
        self._ended.add(place)
        self._back.release()

    def _pause(self, name: str) -> None:
        place = int(threading.current_thread().name)
        self._back.release()
        self._turns[place].acquire()


def schedules(depth: int, begin: Sequence[int] = ()) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Every schedule that begins so and differs in the next `depth` decisions, depth first. What the stage made of the
    first list goes into the second, before the next is asked for."""
    following: list[int] | None = list(begin)
    while following is not None:
        made: list[tuple[int, int]] = []
        yield following, made
        following = None
        for place in reversed(range(len(begin), min(len(begin) + depth, len(made)))):
            chosen, among = made[place]
            if chosen + 1 < among:
                following = [choice for choice, _ in made[:place]] + [chosen + 1]
                break
