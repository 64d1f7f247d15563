"""TLS handshakes in threads: OpenSSL computes a third of a millisecond and more there, without Python's lock.

Many clients often come at once, after a restart for one. In the event loop their handshakes would keep all
others waiting until the last of them is done.
"""

import asyncio
import os
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

#: Whether the handshake is done, or what ended it.
Outcome = bool | ssl.SSLError


def step(tls: ssl.SSLObject, incoming: ssl.MemoryBIO, data: bytes) -> Outcome:
    """Go on with a handshake, with what came from the client."""
    incoming.write(data)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError as error:
        return error
    return True


class Handshakes:
    """Goes on with handshakes in a few threads, in the order in which the clients' data came.

    Args:
        threads: how many; None = half of the cores, one at least, four at most.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or max(1, min(4, (os.cpu_count() or 1) // 2))
        self._pool: ThreadPoolExecutor | None = None

    def go_on(
        self, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, data: bytes, done: Callable[[Outcome], None]
    ) -> None:
        """Do a step, and call `done` in the event loop; nobody else may use `tls` and its BIOs until then."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "tls-handshake")

        def tell(future: asyncio.Future[Outcome]) -> None:
            if not future.cancelled():
                done(future.result())

        future = asyncio.get_running_loop().run_in_executor(self._pool, step, tls, incoming, data)
        future.add_done_callback(tell)

    def close(self) -> None:
        """End; steps that have not begun are given up."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
