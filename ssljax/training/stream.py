"""Batches that are copied from the host to the devices while steps run."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ssljax.data.batches import RawBatch, TrainingData


class Stream:
    """Batches of the host, copied to the devices by a separate thread while steps run.

    `waited` is the time in seconds that the devices were idle because no batch was ready. `done` is
    the number of completed steps; the last two steps that were started may still be running.

    Args:
      batches: the batches of the steps, in order, on the host.
      put: copies a batch to the devices.
    """

    _AHEAD = 2  # number of batches on the devices before they are needed, and of steps in flight

    def __init__(self, batches: Iterator[RawBatch], put: Callable[[RawBatch], RawBatch]):
        self.waited = 0.0
        self.done = 0
        self._running: deque[jax.Array] = deque()
        self._ready: queue.Queue[Any] = queue.Queue(self._AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(batches, put), daemon=True)
        self._thread.start()

    def _fill(self, batches, put):
        try:
            for batch in batches:
                self._offer(put(batch))
                if self._closed.is_set():
                    return
            self._offer(RuntimeError("the stream of batches has ended"))
        except BaseException as error:  # `next` raises it
            self._offer(error)

    def _offer(self, item):
        while not self._closed.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                pass

    def next(self) -> RawBatch:
        """The next batch, once at most one step is still running.

        Raises:
          Whatever the host's iterator raised.
        """
        self._wait(self._AHEAD - 1)
        if self._ready.empty():
            self._wait(0)
            start = time.perf_counter()
            item = self._ready.get()
            self.waited += time.perf_counter() - start
        else:
            item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def follow(self, result: jax.Array) -> None:
        """Records a result of the step that was started with the last batch."""
        self._running.append(result)

    def wait(self) -> None:
        """Waits until all started steps are done."""
        self._wait(0)

    def _wait(self, left: int) -> None:
        """Waits until at most `left` steps are running."""
        while len(self._running) > left:
            jax.block_until_ready(self._running.popleft())
            self.done += 1

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()


Feed = TrainingData | Stream  # the input of steps: all data, replicated, or batch by batch
