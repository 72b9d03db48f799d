"""The thread that accepts connections."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable

from geojax.wire.sockets import Wakeup

log = logging.getLogger("geojax.wire")

ACCEPT_PAUSE_S = 0.1  # after a connection could not be accepted


class Acceptor:
    """Accepts connections until it is stopped, and then frees the listening socket.

    Args:
      name: of the node.
      listener: a listening socket.
      take: takes a connection and its source; false: no more are wanted.
      ended: called by the thread when it has freed what it held.

    Attributes:
      thread: to be started by the owner.
    """

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        take: Callable[[socket.socket, str], bool],
        ended: Callable[[], None],
    ):
        self._name, self._listener, self._take, self._ended = name, listener, take, ended
        self._stop = Wakeup()
        self.thread = threading.Thread(target=self._run, name=f"geojax-accept-{name}", daemon=True)

    def stop(self) -> None:
        """Ends the thread soon; may be called again."""
        self._stop.wake()

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._stop, select.POLLIN)
        while all(descriptor != self._stop.fileno() for descriptor, _ in poller.poll()):
            try:
                sock, (host, port) = self._listener.accept()
            except OSError as error:
                log.warning("%s: could not accept a connection: %s", self._name, error)
                self._stop.wait(ACCEPT_PAUSE_S)  # out of descriptors, perhaps not for long
                continue
            if not self._take(sock, f"{host}:{port}"):
                sock.close()
                break
        self._listener.close()
        self._stop.close()
        self._ended()
