"""A network's tensors as flat blobs, and back: the torch side of ``kubeml.weights.layout``."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from kubeml.errors import InvalidFunction, LayoutMismatch
from kubeml.runtime.device_copies import fetch, fill
from kubeml.weights.layout import ITEM_BYTES, Kind, Layout, TensorSpec
from kubeml.weights.wire_format import WireFormat

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class _Place:
    """Where one tensor lies: in the network, and in the blob of weights or frozen tensors."""

    tensor: torch.Tensor
    spec: TensorSpec
    offset: int


class NetworkBlob:
    """Packs and unpacks one network. Weights are copied in place, so its tensors stay the same.

    Args:
        network: The network, on its device.

    Raises:
        InvalidFunction: A tensor has a dtype that cannot be merged (complex, quantised).
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        found = sorted(
            _tensors(network), key=lambda pair: (pair[1].kind == "frozen", _order(pair[1]))
        )
        self.layout = Layout(tuple(spec for _, spec in found))
        self._moving: list[_Place] = []
        self._frozen: list[_Place] = []
        master = frozen = 0
        for tensor, spec in found:
            if spec.kind == "frozen":
                self._frozen.append(_Place(tensor, spec, frozen))
                frozen += spec.num_bytes
            else:
                self._moving.append(_Place(tensor, spec, master))
                master += spec.master_bytes

    def require_unchanged(self) -> None:
        """Refuse a network whose tensors are no longer those it began with.

        A buffer may be another tensor than before: ``self.mean = 0.9 * self.mean + ...`` in
        ``forward`` makes it so. A parameter may not, since the optimizer holds the first one.

        Raises:
            LayoutMismatch: A tensor appeared, vanished or thawed, or a parameter was replaced.
        """
        now = {spec.name: (tensor, spec) for tensor, spec in _tensors(self._network)}
        for places in (self._moving, self._frozen):
            for index, place in enumerate(places):
                tensor, spec = now.pop(place.spec.name, (None, None))
                if tensor is None or spec is None or spec != place.spec:
                    raise _mismatch(place.spec.name, _describe(place.spec), _describe(spec))
                if tensor.data_ptr() == place.tensor.data_ptr():
                    continue
                if spec.kind != "buffer":
                    raise _mismatch(spec.name, "the tensor of init()", "another one")
                places[index] = replace(place, tensor=tensor)
        for name, (_, spec) in now.items():
            raise _mismatch(name, "absent", _describe(spec))

    def contribution(
        self, wire: WireFormat, base: Buffer | None = None, *, into: bytearray | None = None
    ) -> bytearray:
        """Return the contribution blob of the network as it is.

        Args:
            wire: How the contribution is to travel.
            base: The weights blob that the round began with; needed by a wire of differences.
            into: Memory to use again if it has the right length.

        Raises:
            LayoutMismatch: ``base`` has another length than the layout's.
        """
        length = wire.num_bytes(self.layout)
        blob = into if into is not None and len(into) == length else bytearray(length)
        old = _writable(base, self.layout.weights_bytes) if wire.is_delta and base else bytearray()
        offset = 0
        for place, tensor in _fetched(self._moving):
            spec, dtype = place.spec, wire.dtype(place.spec)
            if wire.sends_delta(spec):
                before = _view(old, spec, spec.master_dtype, place.offset)
                _view(blob, spec, dtype, offset).copy_(torch.sub(tensor, before))
            else:
                _view(blob, spec, dtype, offset).copy_(tensor)
            offset += spec.num_elements * ITEM_BYTES[dtype]
        return blob

    def weights(self) -> bytearray:
        """Return a new weights blob: every moving tensor in its master dtype."""
        blob = bytearray(self.layout.weights_bytes)
        for place, tensor in _fetched(self._moving):
            target = _view(blob, place.spec, place.spec.master_dtype, place.offset)
            target.copy_(tensor)
        return blob

    def frozen(self) -> bytearray:
        """Return a new blob of the frozen tensors."""
        blob = bytearray(self.layout.frozen_bytes)
        for place, tensor in _fetched(self._frozen):
            _view(blob, place.spec, place.spec.dtype, place.offset).copy_(tensor)
        return blob

    @torch.no_grad()
    def load(self, weights: Buffer, frozen: Buffer | None = None) -> None:
        """Copy blobs into the network.

        Raises:
            LayoutMismatch: A blob has another length than the layout's; or as
                ``require_unchanged``.
        """
        data = _writable(weights, self.layout.weights_bytes)
        self.require_unchanged()  # an abandoned round may have left other buffers
        fill(
            [place.tensor for place in self._moving],
            [_view(data, p.spec, p.spec.master_dtype, p.offset) for p in self._moving],
        )
        if frozen is not None:
            data = _writable(frozen, self.layout.frozen_bytes)
            fill(
                [place.tensor for place in self._frozen],
                [_view(data, p.spec, p.spec.dtype, p.offset) for p in self._frozen],
            )


def _fetched(places: list[_Place]) -> Iterator[tuple[_Place, torch.Tensor]]:
    """Yield the places, each with its tensor on the host."""
    return zip(places, fetch([place.tensor for place in places]), strict=True)


def _tensors(network: nn.Module) -> Iterator[tuple[torch.Tensor, TensorSpec]]:
    """Yield every tensor of the state_dict once, with all its names."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    names: dict[tuple[int, tuple[int, ...], str], list[str]] = {}
    first: dict[tuple[int, tuple[int, ...], str], torch.Tensor] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            continue  # a module's extra state is its own matter
        if is_lazy(tensor):
            raise InvalidFunction(
                where=name,
                fault="its shape is not known before the first batch",
                hint="give lazy layers their sizes, or run one batch of zeros in main()",
            )
        # Tied tensors share storage. Empty tensors all have the address 0, and are never tied.
        address = tensor.data_ptr() or id(tensor)
        key = (address, tuple(tensor.shape), str(tensor.dtype))
        names.setdefault(key, []).append(name)
        first.setdefault(key, tensor)
    for key, tensor in first.items():
        own, *aliases = names[key]
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in ITEM_BYTES:
            raise InvalidFunction(where=own, fault=f"tensors of dtype {dtype} cannot be merged")
        kind: Kind = "buffer"
        if own in parameters:
            kind = "param" if parameters[own].requires_grad else "frozen"
        yield (
            tensor,
            TensorSpec(
                name=own,
                shape=tuple(tensor.shape),
                dtype=dtype,
                kind=kind,
                aliases=tuple(aliases),
            ),
        )


def _order(spec: TensorSpec) -> tuple[int, str, str]:
    # Wide elements go first, so that every tensor is aligned; then come runs of a kind and dtype.
    return -ITEM_BYTES[spec.master_dtype], spec.kind, spec.dtype


def _view(data: bytearray, spec: TensorSpec, dtype: str, offset: int) -> torch.Tensor:
    """Return a tensor on the blob's own memory."""
    if not spec.num_elements:
        return torch.empty(spec.shape, dtype=getattr(torch, dtype))
    flat = torch.frombuffer(
        data, dtype=getattr(torch, dtype), count=spec.num_elements, offset=offset
    )
    return flat.reshape(spec.shape)


def _writable(blob: Buffer, length: int) -> bytearray:
    if len(blob) != length:
        raise _mismatch("(all)", f"{length} bytes", f"{len(blob)} bytes")
    if isinstance(blob, memoryview) and isinstance(blob.obj, bytearray) and blob.contiguous:
        base = blob.obj
        if len(base) == length:
            return base
    # torch.frombuffer warns about read-only memory, although the blob is only read here.
    return blob if isinstance(blob, bytearray) else bytearray(blob)


def _describe(spec: TensorSpec | None) -> str:
    if spec is None:
        return "absent"
    frozen = " frozen" if spec.kind == "frozen" else ""
    return f"{spec.dtype}{list(spec.shape)}{frozen}"


def _mismatch(tensor: str, expected: str, got: str) -> LayoutMismatch:
    return LayoutMismatch(slot=0, tensor=tensor, expected=expected, got=got)
