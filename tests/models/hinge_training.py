"""A short training on one batch."""

import torch

from crossmodal.losses.pair import hinge_loss


def hinge_losses(model, batch, steps=60):
    """Losses of a training of ``model`` on the regions and words of one batch, step by step."""
    regions, words = batch
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        similarity = model.similarity(model.encode_images(regions), model.encode_captions(words))
        loss = hinge_loss(similarity, margin=0.2, hardest=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
