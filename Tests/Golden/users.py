"""Golden numbers of the user model for Tests/LayersTests, worked out by PyTorch.

    python3 Tests/Golden/users.py > Tests/LayersTests/GoldenUsers.swift

Parameters and batch are those of layers.py; the user's side is features 0 and 1 and the dense number in the middle. Of each
tensor's gradient only its product with a fixed vector is written down: there are many.
"""

import math

import torch
from torch.nn import functional

from layers import DENSE, EXAMPLES, K, TASKS, fill, mixer_block, model, perceptron, write

EMBEDDINGS = 2 * 8


def module(p, tokens, outputs):
    inputs, share = tokens * K, outputs // 4
    mlp, mlp_output = perceptron(p, inputs, [6, 5], norm=False), (p(share, 5), p(share))
    scores, attention_output = (p(2 * tokens, inputs), p(2 * tokens)), (p(share, 2 * tokens), p(share))
    crosses, cross_output = [(p(inputs, inputs), p(inputs)) for _ in range(2)], (p(share, inputs), p(share))
    mix, mixer_output = mixer_block(p, tokens, K, 2 * tokens, 2 * K), (p(share, inputs), p(share))
    residual = p(outputs, inputs) if outputs != inputs else None
    norm = (p(outputs), p(outputs))

    def run(flat):
        x = flat.reshape(EXAMPLES, tokens, K)
        weights = functional.softmax(functional.linear(flat, *scores).reshape(EXAMPLES, 2, tokens), 2)
        products = x @ (weights @ x).transpose(1, 2) / math.sqrt(K)
        crossed = flat
        for cross in crosses:
            crossed = flat * functional.linear(crossed, *cross) + crossed
        parts = [
            functional.linear(mlp(flat), *mlp_output),
            functional.linear(products.reshape(EXAMPLES, -1), *attention_output),
            functional.linear(crossed, *cross_output),
            functional.linear(mix(x).reshape(EXAMPLES, -1), *mixer_output),
        ]
        shortcut = flat if residual is None else flat @ residual.T
        return functional.layer_norm(torch.cat(parts, 1) + shortcut, (outputs,), *norm)

    return run


def users(p, rows, dense, combiner):
    user_bottom = perceptron(p, 1, [5, K], norm=False)
    features = rows(combiner, lambda: p(K))
    first, second = module(p, 3, 8), module(p, 2, EMBEDDINGS)
    embeddings = second(first(torch.cat([user_bottom(dense[:, 1:2])] + features[:2], 1)))
    mix_bottom = perceptron(p, DENSE - 1, [5, K], norm=False)
    mix = module(p, EMBEDDINGS // K + 3, 8)
    top = mix(torch.cat([embeddings, mix_bottom(dense[:, [0, 2]])] + features[2:], 1))
    return functional.linear(top, p(TASKS, 8), p(TASKS))


print(f"// Written by Tests/Golden/users.py with PyTorch {torch.__version__.split('+')[0]} in float64; do not edit.\n")
print("extension Golden {")
logits, losses, *gradients = model(users, K, "attention")
tensors = [(g.reshape(-1) * fill(g.numel(), 500 + i)).sum() for i, g in enumerate(gradients[:-3])]
write("sum", [logits, losses, torch.stack(tensors)] + gradients[-3:])
print("}")
