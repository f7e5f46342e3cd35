"""The processes that train one model together, each on a device of its own; mostly one alone.

All of them do the same work with the same numbers, but for two things: each computes the gradient
of its share of a batch, and each reads its share of what is to be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

if TYPE_CHECKING:
    from accelerate import PartialState

Item = TypeVar("Item")
Number = TypeVar("Number", bound=np.generic)


def join_peers(*, on_cpu: bool) -> None:
    """Meet the other processes that the launcher started; returns when all are there."""
    from accelerate import PartialState

    PartialState(cpu=on_cpu)


def leave_peers() -> None:
    """Wait until all are done, then part; a process that just ends can abort in a library's exit.

    What the launcher then sees is a failure, for which it ends the others while they write.
    """
    state = _state()
    if state is None:
        return
    state.wait_for_everyone()
    state.destroy_process_group()


def n_processes() -> int:
    """Return how many train together, 1 when this process is alone."""
    state = _state()
    return 1 if state is None else int(state.num_processes)


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    return number() == 0


def number() -> int:
    """Return which of the processes this one is, counted from 0."""
    state = _state()
    return 0 if state is None else int(state.process_index)


def device() -> torch.device | None:
    """Return the device that is this process's own, None when it is alone and may choose."""
    state = _state()
    return None if state is None else state.device


def share_of_batch(rows: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return this process's rows of a batch; of a batch too small for all, at least one."""
    mine = rows[number() :: n_processes()]
    return mine if len(mine) else rows[:1]


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's share, possibly empty."""
    return items[number() :: n_processes()]


def whole(part: NDArray[Number]) -> NDArray[Number]:
    """Return the sum of all processes' arrays, each of which is 0 outside its own share."""
    state = _state()
    if state is None:
        return part
    from accelerate.utils import reduce

    tensor = torch.from_numpy(part).to(state.device)
    summed: NDArray[Number] = reduce(tensor, reduction="sum").cpu().numpy()
    return summed


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every process the mean of all processes' gradients.

    As distributed data parallel does: the mean of the shares' mean losses, where one process has
    the mean of the whole batch.
    """
    if _state() is None:
        return
    from accelerate.utils import reduce

    gradients = [tensor.grad for tensor in parameters if tensor.grad is not None]
    means: list[Any] = reduce(gradients, reduction="mean")
    torch._foreach_copy_(gradients, means)


def _state() -> PartialState | None:
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    from accelerate import PartialState

    return PartialState()
