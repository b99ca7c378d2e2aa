"""SGR's graph reasoning with fewer products than equations (5) and (6) are written with.

W_in and W_out are folded into one map: but for terms that are the same for all q,

    (W_in s_p + b_in) . (W_out s_q + b_out) = (W_out' W_in s_p + W_out' b_in) . s_q

and the last step computes node 0 only, which is all that the score reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from crossmodal.models.sgraf.compiled import PackedMap, reason
from crossmodal.models.sgraf.equations import GraphReasoning
from crossmodal.models.sgraf.threads import Buffers
from crossmodal.models.sgraf.tiled import TorchMap

Map = TorchMap | PackedMap
MakeMap = Callable[[torch.Tensor, torch.Tensor], Map]


@dataclass(frozen=True)
class GraphStep:
    """A step. query: W_out' W_in of (5); update: W_r of (6)."""

    query: Map
    update: Map


def graph_steps(reasoning: GraphReasoning, make: MakeMap) -> tuple[GraphStep, ...]:
    """Steps whose maps ``make`` gives of weight and bias."""
    return tuple(
        GraphStep(
            query=make(step["key"].weight.T @ step["query"].weight, step["key"].weight.T @ step["query"].bias),
            update=make(step["map"].weight, step["map"].bias),
        )
        for step in reasoning.steps
    )


def reason_over_graph(
    nodes: torch.Tensor, steps: Sequence[GraphStep], buffers: Buffers | None, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """(P, 1 + L, S) to (P, S).

    Args:
        buffers: None where gradients are kept; else ``nodes`` may be written over.
        mask: (P, 1 + L) bool, False where a node is padding; None: none is.
    """
    if mask is None and isinstance(steps[0].query, PackedMap):
        return reason(nodes, [layer for step in steps for layer in (step.query, step.update)], buffers)
    absent = None if mask is None else ~mask

    def scratch(name: str) -> torch.Tensor | None:
        return None if buffers is None else buffers.take(name, nodes, *nodes.shape)

    for step in steps[:-1]:
        query = step.query.linear(nodes, scratch("query"))
        logits = torch.bmm(nodes, query.mT)  # (P, q, p): transposed, which is faster
        if absent is not None:
            logits = logits.masked_fill(absent.unsqueeze(2), float("-inf"))
        edges = logits.softmax(dim=1)
        messages = torch.bmm(edges.mT, nodes, out=scratch("query"))
        nodes = step.update.linear(messages, scratch("reasoned"), relu=True)
    query = steps[-1].query.linear(nodes[:, 0])  # (P, S)
    logits = (nodes * query.unsqueeze(1)).sum(dim=-1)  # (P, q)
    if absent is not None:
        logits = logits.masked_fill(absent, float("-inf"))
    edges = logits.softmax(dim=1)
    message = torch.bmm(edges.unsqueeze(1), nodes).squeeze(1)
    return steps[-1].update.linear(message, relu=True)
