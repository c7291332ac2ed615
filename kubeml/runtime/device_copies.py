"""Many tensors between the host and an accelerator, in few copies.

Each copy of a tensor to the host waits for all work of the device, and a network has hundreds of
tensors. Here they are joined on the device, by dtype, and cross in pieces through pinned memory, so
that the host waits once. Tensors on the CPU take no part in this and are used as they are.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

#: About how many bytes one copy moves, which is also the memory on the device that joining takes.
_PIECE_BYTES = 64 * 2**20


def is_far(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is on an accelerator, as plain memory."""
    return tensor.device.type not in {"cpu", "meta"} and tensor.layout is torch.strided


def fetch(
    tensors: Sequence[torch.Tensor], *, far: Callable[[torch.Tensor], bool] = is_far
) -> list[torch.Tensor]:
    """Bring tensors to the host.

    Args:
        tensors: Tensors of any devices, dtypes and shapes.
        far: Which of them to copy; the others are returned as they are, detached.

    Returns:
        As many tensors in the same order, with the same shapes, dtypes and bits. They may only be
        read, since they may share memory.
    """
    found = [tensor.detach() for tensor in tensors]
    places, devices = [tensor.device for tensor in found], set()
    for device, piece in _pieces(found, places, lambda index: far(tensors[index])):
        # A single tensor is not copied to join it: it may be most of the network.
        flat = [found[index].reshape(-1) for index in piece]
        joined = torch.cat(flat) if len(flat) > 1 else flat[0]
        host = _host_memory(joined, joined.numel(), device)
        host.copy_(joined, non_blocking=True)
        devices.add(device)
        for index, part in zip(piece, _split(host, [found[i] for i in piece]), strict=True):
            found[index] = part
    for device in devices:
        if device.type != "cpu":
            torch.accelerator.current_stream(device).synchronize()
    return found


@torch.no_grad()
def fill(
    targets: Sequence[torch.Tensor],
    sources: Sequence[torch.Tensor],
    *,
    far: Callable[[torch.Tensor], bool] = is_far,
) -> None:
    """Copy tensors on the host into others, converting dtypes as ``copy_`` does.

    A device may still be copying on return; work that it is given later comes after that. The
    sources may be changed at once.

    Args:
        targets: The tensors to fill, on any devices.
        sources: Tensors on the host, of the same shapes.
        far: Which targets are filled by way of pinned memory; the others are copied to one by one.
    """
    for target, source in zip(targets, sources, strict=True):
        if not far(target):
            target.copy_(source)
    places = [target.device for target in targets]
    for device, piece in _pieces(sources, places, lambda index: far(targets[index])):
        parts = [sources[index] for index in piece]
        host = _host_memory(parts[0], sum(part.numel() for part in parts), device)
        for staged, part in zip(_split(host, parts), parts, strict=True):
            staged.copy_(part)
        there = host.to(device, non_blocking=True)
        for index, part in zip(piece, _split(there, parts), strict=True):
            targets[index].copy_(part)


def _pieces(
    tensors: Sequence[torch.Tensor],
    devices: Sequence[torch.device],
    wanted: Callable[[int], bool],
) -> Iterator[tuple[torch.device, list[int]]]:
    """Yield a device and the indices of tensors that cross together: one dtype, not too large."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, (tensor, device) in enumerate(zip(tensors, devices, strict=True)):
        if wanted(index):
            kinds.setdefault((device, tensor.dtype), []).append(index)
    for (device, _), indices in kinds.items():
        piece: list[int] = []
        size = 0
        for index in indices:
            length = tensors[index].numel() * tensors[index].element_size()
            if piece and size + length > _PIECE_BYTES:
                yield device, piece
                piece, size = [], 0
            piece.append(index)
            size += length
        yield device, piece


def _host_memory(like: torch.Tensor, count: int, device: torch.device) -> torch.Tensor:
    """Return flat memory on the host, with which a device exchanges data by itself.

    torch keeps pinned memory for later calls, and does not reuse it while a copy is under way.
    """
    return torch.empty(count, dtype=like.dtype, pin_memory=device.type != "cpu")


def _split(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return consecutive parts of a flat tensor, in the shapes of other tensors."""
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
