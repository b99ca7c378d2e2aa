"""The same requests to one object from one thread and from several."""

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

THREADS = 8


def answers_of_threads(ask, requests, rounds=2):
    """Every request ``rounds`` times by each of eight threads that begin together, each in an order of its own.

    Returns:
        (request, answer) of all of them.
    """
    barrier = Barrier(THREADS)

    def client(number):
        mixed = random.Random(number).sample(list(requests) * rounds, len(requests) * rounds)
        barrier.wait()
        return [(request, ask(request)) for request in mixed]

    with ThreadPoolExecutor(THREADS) as pool:
        return [pair for pairs in pool.map(client, range(THREADS)) for pair in pairs]
