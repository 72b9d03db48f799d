"""What tests have planned in another process, which imports it from here."""

import os
import signal
import sys
import threading


class Stubborn(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, number, text):
        super().__init__(f"{text} {number}")


def divided(number, by):
    """Raises ZeroDivisionError for 0."""
    return number / by


def stubborn(number):
    """Raises an error that cannot travel."""
    raise Stubborn(number, "not this one:")


def a_function():
    """Answers with what cannot travel."""
    return lambda: None


def killed():
    """Ends the process as lack of memory would."""
    os.kill(os.getpid(), signal.SIGKILL)


def whole_process():
    """Its id, its threads, and the modules that it has loaded."""
    threads = sorted(thread.name for thread in threading.enumerate())
    return os.getpid(), threads, sorted(sys.modules)


def forever(path):
    """Says in a file which process it is, and never comes back."""
    path.with_suffix(".partial").write_text(str(os.getpid()))
    path.with_suffix(".partial").rename(path)
    while True:
        pass
