"""What a process keeps of memory that it has freed."""

import subprocess
import sys

FRAGMENTED = """
import psutil
import torch
from editlab.model.memory import heap

def resident():
    return psutil.Process().memory_info().rss

def grow():
    "Large blocks, freed, between small ones that stay, as measuring leaves them."
    small, large = [], []
    for _ in range(100):
        large.append(torch.ones(2**18))
        small.append([torch.ones(16) for _ in range(50)])
    return small

first = torch.ones(2**22)
del first  # from now on glibc takes blocks of this size from its heap
heap.give_back()
before, kept = resident(), grow()
grown = resident() - before
heap.give_back_if_grown(2**40)
assert resident() - before > 0.8 * grown, "given back though it had hardly grown"
heap.give_back_if_grown(2**26)
print(grown >> 20, (resident() - before) >> 20)
"""


def test_memory_that_was_freed_between_blocks_in_use_is_given_back():
    done = subprocess.run([sys.executable, "-c", FRAGMENTED], capture_output=True, text=True, check=True, timeout=120)
    grown, left = map(int, done.stdout.split())

    assert grown > 80, "the C library gave it back by itself"
    assert left < 10
