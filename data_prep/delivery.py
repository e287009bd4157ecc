"""Finished shards on their way to the store, beside the work on the next ones."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Parcel = TypeVar("Parcel")

THREADS = 4


def in_threads(deliver: Callable[[Parcel], None], parcels: Iterable[Parcel], most: int) -> list[Parcel]:
    """Deliver everything that comes, a few at once; all of it, once it is in place.

    While `most` parcels wait or are on their way, no further one is taken from the iterable: they lie
    in scratch space. The first error ends it, without beginning anything new.
    """
    done: list[Parcel] = []
    under_way: dict[Future[None], Parcel] = {}
    threads = ThreadPoolExecutor(THREADS)
    try:
        for parcel in parcels:
            under_way[threads.submit(deliver, parcel)] = parcel
            done += _collect(under_way, need_one=len(under_way) >= most)
        while under_way:
            done += _collect(under_way, need_one=True)
    finally:
        threads.shutdown(cancel_futures=True)
    return done


def _collect(under_way: dict[Future[None], Parcel], need_one: bool) -> list[Parcel]:
    """Parcels that have arrived, removed from those under way; waits for one if `need_one`."""
    if need_one:
        wait(under_way, return_when=FIRST_COMPLETED)
    arrived = [future for future in under_way if future.done()]
    for future in arrived:
        future.result()
    return [under_way.pop(future) for future in arrived]
