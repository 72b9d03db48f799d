"""Linear programs are solved, and a signal ends the wait for one."""

import signal
import threading

import numpy as np
import pytest
from scipy.sparse import csr_array

from geojax.errors import GeojaxError
from geojax.overlay.bounds import linear_program
from geojax.overlay.bounds.linear_program import maximize


def test_value_place_and_prices():
    """Max 3x + 2y with x + y ≤ 4, x ≤ 3: at (3, 1); one more of each limit is worth 2 and 1."""
    matrix = csr_array(np.array([[1.0, 1.0], [1.0, 0.0]]))
    found = maximize(np.array([3.0, 2.0]), matrix, np.array([4.0, 3.0]), what="it was")
    assert found.value == pytest.approx(11.0)
    assert found.x == pytest.approx([3.0, 1.0])
    assert found.prices == pytest.approx([2.0, 1.0])


def test_what_has_no_end_is_told_by_name():
    with pytest.raises(GeojaxError, match="the bound of two centers was not found: "):
        maximize(np.ones(1), csr_array([[-1.0]]), np.ones(1), what="the bound of two centers was")


def test_an_error_of_the_solver_comes_out(monkeypatch):
    def broken(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(linear_program, "linprog", broken)
    with pytest.raises(MemoryError, match="no room"):
        maximize(np.ones(1), csr_array([[1.0]]), np.ones(1), what="it was")


class Stop(Exception):
    pass


@pytest.mark.parametrize("interrupts", [True, False], ids=["interrupts it", "comes before it"])
def test_a_signal_ends_the_wait(monkeypatch, interrupts):
    """A solver that would never end; the signal comes when it is at work.

    Another thread that gets the signal interrupts no wait of the main thread, as if the signal had
    come just before it: Python's handler is due, and the main thread waits in C.
    """
    working, release = threading.Event(), threading.Event()

    def endless(*_, **__):
        working.set()
        release.wait()

    def stop(*_):
        raise Stop

    def signal_when_working():
        working.wait()
        receiver = threading.main_thread() if interrupts else threading.current_thread()
        signal.pthread_kill(receiver.ident, signal.SIGUSR1)

    monkeypatch.setattr(linear_program, "linprog", endless)
    before = signal.signal(signal.SIGUSR1, stop)
    sender = threading.Thread(target=signal_when_working)
    sender.start()
    try:
        with pytest.raises(Stop):
            maximize(np.ones(1), csr_array([[1.0]]), np.ones(1), what="it was")
    finally:
        signal.signal(signal.SIGUSR1, before)
        release.set()
        sender.join()
