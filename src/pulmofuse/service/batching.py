"""Micro-batching: files that arrive together go through the network together.

One thread owns the network, so its answers never wait for a lock of each other. While it works,
files that are ready gather; when it is free they go as one batch per modality. A file waits for
others only while others of its modality are being prepared, and never longer than the window: a
client that is alone loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pulmofuse.models import Inferred
from pulmofuse.preprocessing import Prepared
from pulmofuse.schema import Modality

Infer = Callable[[Modality, Sequence[Prepared]], list[Inferred]]


@dataclass(eq=False)
class _Waiting:
    prepared: Prepared
    answer: asyncio.Future[Inferred]
    since: float


class MicroBatcher:
    """Collects prepared files and runs the network over them.

    Args:
        infer: what the network says of several files of one modality; runs in one thread.
        window_s: how long a file waits for others that are on their way.
        most: files in one batch.
        on_batch: told the size of each batch.
    """

    def __init__(
        self, infer: Infer, window_s: float, most: int, on_batch: Callable[[int], None]
    ) -> None:
        self._infer, self._window_s, self._most, self._on_batch = infer, window_s, most, on_batch
        self._queues: dict[Modality, deque[_Waiting]] = {m: deque() for m in Modality}
        self._coming: dict[Modality, int] = dict.fromkeys(Modality, 0)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; inside a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def runs(self) -> bool:
        """Whether files that are put in will be looked at."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """End; who still waits is told."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for queue in self._queues.values():
            while queue:
                queue.popleft().answer.cancel()
        self._thread.shutdown(wait=True)

    @contextlib.contextmanager
    def coming(self, modality: Modality) -> Iterator[None]:
        """A file of this modality is being prepared inside the block."""
        self._coming[modality] += 1
        try:
            yield
        finally:
            self._coming[modality] -= 1
            self._changed.set()

    async def infer(self, modality: Modality, prepared: Prepared) -> Inferred:
        """What the network says of one file."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(prepared, loop.create_future(), loop.time())
        self._queues[modality].append(waiting)
        self._changed.set()
        return await waiting.answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            now = loop.time()
            modality = self._ready(now)
            if modality is not None:
                await self._run_batch(modality)
                continue
            oldest = [queue[0].since for queue in self._queues.values() if queue]
            wait_s = max(0.0, min(oldest) + self._window_s - now) if oldest else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_s)

    def _ready(self, now: float) -> Modality | None:
        """The modality whose oldest file has waited longest and need not wait any more."""
        ready = [
            (queue[0].since, modality)
            for modality, queue in self._queues.items()
            if queue
            and (
                len(queue) >= self._most
                or not self._coming[modality]
                or now - queue[0].since >= self._window_s
            )
        ]
        return min(ready)[1] if ready else None

    async def _run_batch(self, modality: Modality) -> None:
        queue = self._queues[modality]
        batch: list[_Waiting] = []
        while queue and len(batch) < self._most:
            waiting = queue.popleft()
            if not waiting.answer.done():  # nobody waits for it any more
                batch.append(waiting)
        if not batch:
            return
        await self._answer(modality, batch)

    async def _answer(self, modality: Modality, batch: Sequence[_Waiting]) -> None:
        """Run a batch; if it fails, each file by itself, so that one cannot spoil the others.

        Whatever fails belongs to a file: an error that got out would end the task for good.
        """
        loop = asyncio.get_running_loop()
        files = [waiting.prepared for waiting in batch]
        try:
            self._on_batch(len(batch))
            answers = await loop.run_in_executor(self._thread, self._infer, modality, files)
            pairs = list(zip(batch, answers, strict=True))
        except Exception as error:  # noqa: BLE001
            if len(batch) > 1:
                for waiting in batch:
                    await self._answer(modality, [waiting])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for waiting, answer in pairs:
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
