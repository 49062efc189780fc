"""A model sharded over ranks (FSDP2): every rank holds a piece of each weight.

Each layer's parameters lie on all ranks in pieces of rows; they are gathered when the layer runs,
and its gradients are summed, not averaged: the loss has one denominator for all ranks. Weights
that are trained are held in fp32, the masters, and gathered in the model's dtype.
"""

from __future__ import annotations

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from selfplay.learner.lora import lora_layers
from selfplay.learner.ranks.distributed import World, local
from selfplay.learner.scoring import TokenScorer
from selfplay.modeling.attention import decoder_of


def shard(scorer: TokenScorer, world: World) -> None:
    """Replace the parameters of `scorer` by this rank's pieces, in place.

    All ranks must hold equal weights. Frozen weights keep their dtype; the factors of adapters
    are fp32 and are gathered so. At most one layer is held in fp32 as a whole.
    """
    assert world.mesh is not None
    model = scorer.model
    full = next((p for p in model.parameters() if p.requires_grad), None)
    dtype = None if full is None or full.dtype == torch.float32 else full.dtype
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    bases = {layer: layer.base for _, layer in lora_layers(model)}
    for module in (*decoder_of(model).layers, scorer):
        for param in module.parameters():
            if param.requires_grad and not isinstance(param, DTensor):
                param.data = param.data.float()
        fully_shard(module, mesh=world.mesh, mp_policy=policy)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sums
    for layer, base in bases.items():
        piece = own_rows(base, world).to(layer.weight.device)
        assert piece.shape == local(layer.weight).shape
        layer.base = piece.clone()


def own_rows(whole: torch.Tensor, world: World) -> torch.Tensor:
    """The rows of `whole` that lie on this rank; none on the last ranks where rows are few."""
    pieces = torch.chunk(whole, world.size)
    return pieces[world.rank] if world.rank < len(pieces) else whole[:0]
