"""Micro-batching: the same answers, together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pulmofuse.curation.inspection import Seen
from pulmofuse.inference import Predictor
from pulmofuse.models import Inferred
from pulmofuse.preprocessing import Prepared
from pulmofuse.schema import Modality
from pulmofuse.service.batching import MicroBatcher
from tests.service import material
from tests.service.conftest import Serve


def file(number: int) -> Prepared:
    return Prepared(np.full((1, 1), number), Seen({}, b"", ()))


def echo(modality: Modality, files: Sequence[Prepared]) -> list[Inferred]:
    """A network that says the number of each file, and breaks on a negative one."""
    numbers = [int(one.instances[0, 0]) for one in files]
    if min(numbers) < 0:
        raise RuntimeError("broken")
    return [Inferred(np.array([[n]], float), np.zeros((1, 1))) for n in numbers]


async def run(
    numbers: list[int], *, window_s: float = 0.05, most: int = 16, coming: int = 0
) -> tuple[list[Any], list[int]]:
    """Put files in at once; the answers (or errors) and the sizes of the batches."""
    sizes: list[int] = []
    batcher = MicroBatcher(echo, window_s, most, sizes.append)
    batcher.start()
    batcher._coming[Modality.CXR] = coming
    waiting = [batcher.infer(Modality.CXR, file(n)) for n in numbers]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await batcher.stop()
    return [a if isinstance(a, BaseException) else a.p.item() for a in answers], sizes


class TestMicroBatcher:
    def test_files_that_wait_together_go_together_in_order(self) -> None:
        answers, sizes = asyncio.run(run([3, 1, 2]))
        assert answers == [3, 1, 2]
        assert sizes == [3]

    def test_a_batch_has_at_most_so_many(self) -> None:
        answers, sizes = asyncio.run(run(list(range(10)), most=4))
        assert answers == list(range(10))
        assert sizes == [4, 4, 2]

    def test_one_that_breaks_does_not_spoil_its_neighbours(self) -> None:
        answers, _ = asyncio.run(run([5, -1, 7]))
        assert (answers[0], answers[2]) == (5, 7)
        assert isinstance(answers[1], RuntimeError)

    @pytest.mark.parametrize("what", ["answers", "on_batch"])
    def test_whatever_fails_the_next_file_is_answered(self, what: str) -> None:
        def short(modality: Modality, files: Sequence[Prepared]) -> list[Inferred]:
            return echo(modality, files)[: 0 if broken else None]

        def told(_: int) -> None:
            if broken:
                raise RuntimeError("no metrics")

        async def twice() -> None:
            batcher = MicroBatcher(
                short if what == "answers" else echo, 0.01, 16,
                told if what == "on_batch" else lambda _: None,
            )  # fmt: skip
            assert not batcher.runs
            batcher.start()
            async with asyncio.timeout(30):
                with pytest.raises((ValueError, RuntimeError)):
                    await batcher.infer(Modality.CXR, file(1))
                broken.clear()
                assert (await batcher.infer(Modality.CXR, file(2))).p.item() == 2
            assert batcher.runs
            await batcher.stop()
            assert not batcher.runs

        broken = [True]
        asyncio.run(twice())

    def test_who_is_alone_does_not_wait_for_the_window(self) -> None:
        async def alone() -> None:
            async with asyncio.timeout(30):
                assert await run([1], window_s=3600) == ([1], [1])

        asyncio.run(alone())

    def test_the_window_ends_the_wait_for_others(self) -> None:
        async def waits() -> None:
            async with asyncio.timeout(30):
                assert await run([1], window_s=0.01, coming=1) == ([1], [1])

        asyncio.run(waits())

    def test_modalities_are_not_mixed(self) -> None:
        async def both() -> list[int]:
            sizes: list[int] = []
            batcher = MicroBatcher(echo, 0.05, 16, sizes.append)
            batcher.start()
            await asyncio.gather(
                *(batcher.infer(m, file(n)) for n, m in enumerate([*Modality, *Modality]))
            )
            await batcher.stop()
            return sizes

        assert asyncio.run(both()) == [2, 2, 2]

    def test_whoever_still_waits_at_the_end_is_told(self) -> None:
        async def ends() -> None:
            batcher = MicroBatcher(echo, 3600, 16, lambda _: None)
            batcher._coming[Modality.CT] = 1
            batcher.start()
            waiting = asyncio.ensure_future(batcher.infer(Modality.CT, file(1)))
            await asyncio.sleep(0.01)
            await batcher.stop()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(ends())


@pytest.mark.parametrize("modality", list(Modality))
def test_the_network_says_the_same_of_files_together_and_alone(
    predictor: Predictor, modality: Modality
) -> None:
    files = [predictor.prepare(modality, getattr(material, modality)(i)) for i in range(5)]
    together = predictor.infer(modality, files)
    for one, among in zip(files, together, strict=True):
        (alone,) = predictor.infer(modality, [one])
        np.testing.assert_allclose(among.p, alone.p, atol=1e-5)
        np.testing.assert_allclose(among.features, alone.features, atol=1e-4)


def test_requests_that_come_together_are_answered_as_if_alone(
    serve: Serve, predictor: Predictor
) -> None:
    sizes: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(predictor, name)

        def infer(self, modality: Modality, files: Sequence[Prepared]) -> list[Inferred]:
            sizes.append(len(files))
            return predictor.infer(modality, files)

    served = serve({"batch_window_s": 1.0, "workers": 4}, predictor=Counting())
    files = [material.cxr(i) if i % 4 else material.cxr(i)[:300] for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda data: served.predict({"cxr": data}), files))

    assert [a.status_code for a in answers] == [200 if i % 4 else 422 for i in range(12)]
    for data, answer in zip(files, answers, strict=True):
        if answer.status_code == 200:
            expected = predictor.predict(cxr=data).probabilities
            assert answer.json()["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert sum(sizes) == 9
    assert max(sizes) > 1
