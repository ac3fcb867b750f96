"""The loss of a training step: over the text rows alone, or over all rows as transformers has it.

Over all rows, the logits of every row are copied to float32, and log-softmax and its gradient are
of every row; rows without a text token to predict have the label -100. That is transformers' own
``ForCausalLMLoss``, which is called here.

Shapes: B batch, S rows of the LM head on this rank, W vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.lvlm.context import Context
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import Layout
from workbench.lvlm.sharing import text_copies
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

IGNORED = -100
"""The label of a row that predicts nothing: transformers' ``ignore_index``."""


def num_targets(cell: Cell) -> int:
    """Tokens that the loss is the mean of: all text, or all text that has a token before it.

    Each as often as there are ranks that compute it.

    Raises RequestError where there is none.
    """
    if cell.loss_rows == "text":
        return cell.num_text * cell.batch * text_copies(cell)
    count = cell.num_text - (not Layout.of(cell).segments[0].visual)
    if count == 0:
        raise RequestError(
            f"loss_rows all: the only text token of layout {cell.layout} begins the sequence, and "
            "no row predicts it"
        )
    return count * cell.batch


def make_labels(context: Context, vocabulary: int) -> Tensor:
    """Random labels of every row of this rank, int64 [B, S]; IGNORED where no text is predicted.

    One process has them as transformers takes them: row n has the label of token n, and the loss
    shifts them. Ranks that share a sequence have them shifted already, since the last row of one
    predicts the first token of the next.
    """
    cell, device = context.cell, context.device
    shape = (cell.batch, context.layout.length)
    if tracing(device):
        return torch.randint(vocabulary, shape, device=device)
    shift = int(cell.sharing > 1)
    predicting = Layout.of(cell).positions(visual=False) - shift
    rows = torch.isin(context.layout.sequence, predicting).nonzero().flatten().to(device)
    labels = torch.full(shape, IGNORED, device=device)
    labels[:, rows] = torch.randint(vocabulary, (cell.batch, len(rows)), device=device)
    return labels


def shifted(cell: Cell, labels: Tensor) -> Tensor:
    """The label that each row predicts, [B, S], shifted as transformers does it."""
    if cell.sharing > 1:
        return labels
    return F.pad(labels, (0, 1), value=IGNORED)[..., 1:].contiguous()


def loss_of_all_rows(cell: Cell, logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """transformers' loss of logits [B, S, W]: a mean, of ranks a share that adds up to it."""
    from transformers.loss.loss_utils import ForCausalLMLoss  # Takes a second.

    if cell.sharing == 1:
        return ForCausalLMLoss(logits, labels, logits.shape[-1])
    return ForCausalLMLoss(
        logits, None, logits.shape[-1], num_items_in_batch=count, shift_labels=labels
    )


def loss_of_text_rows(cell: Cell, logits: Tensor, targets: Tensor, count: int) -> Tensor:
    """The float32 cross-entropy of logits [B, T, W] against [B, T]: a mean, of ranks a share."""
    rows, labels = logits.float().flatten(0, 1), targets.flatten()
    if cell.sharing == 1:
        return F.cross_entropy(rows, labels)
    return F.cross_entropy(rows, labels, reduction="sum") / count


def loss_flags(cell: Cell) -> list[str]:
    """Where a loss of the text rows leaves out what transformers' own does, says so."""
    if not cell.optimizes or cell.tiled or cell.num_visual == 0:
        return []
    if cell.logits == "text" or cell.loss_rows == "all":
        return []
    return [
        "loss_rows: float32 logits, log-softmax and its gradient are of the text rows alone; "
        "transformers' own loss makes them of every row, as --loss-rows all does"
    ]
