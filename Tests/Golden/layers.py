"""Golden numbers for Tests/LayersTests, worked out by PyTorch from its own modules and autograd.

    python3 Tests/Golden/layers.py > Tests/LayersTests/Golden.swift

Parameters and batch follow formulas that GoldenTests.swift repeats; only results are written down.
"""

import math

import numpy
import torch
from torch import nn
from torch.nn import functional

torch.set_default_dtype(torch.float64)
EXAMPLES, TASKS, K, DENSE, ROWS = 4, 3, 4, 3, 4
# Per feature: table, occurrences per example.
FEATURES = [
    (0, [[0], [1], [2], [0]]),
    (1, [[0, 1, 1], [], [3], [2, 0]]),
    (1, [[3], [2], [0], [1]]),
    (2, [[1, 2], [0], [], [3, 3, 1]]),
]


def fill(count, number, amplitude=0.5):
    """The values of tensor or table `number`."""
    return torch.tensor([amplitude * math.sin(1.3 * i + number + 1) for i in range(count)])


class Parameters:
    """Tensors in the order in which the model asks for them."""

    def __init__(self):
        self.tensors = []

    def __call__(self, *shape):
        values = fill(math.prod(shape), len(self.tensors)).reshape(shape).requires_grad_()
        self.tensors.append(values)
        return values


def combine(table, lists, combiner, query=None):
    """The combined row of each example; a query reads the last K numbers."""
    result = []
    for rows in lists:
        values = table[rows]
        if not rows:
            result.append(torch.zeros(table.shape[1]))
        elif combiner == "sum":
            result.append(values.sum(0))
        elif combiner == "mean":
            result.append(values.mean(0))
        else:
            weights = functional.softmax(values[:, -K:] @ query / math.sqrt(K), 0)
            result.append(weights @ values)
    return torch.stack(result)


def perceptron(p, inputs, widths, norm):
    layers = []
    for width in widths:
        linear = (p(width, inputs), p(width))
        layers.append((linear, (p(width), p(width)) if norm else None))
        inputs = width

    def run(x):
        for (weight, bias), normal in layers:
            x = functional.linear(x, weight, bias)
            if normal:
                x = functional.layer_norm(x, (x.shape[1],), *normal)
            x = functional.relu(x)
        return x

    return run


def logistic(p, rows, dense, combiner):
    bias, weight = p(TASKS), p(TASKS, DENSE)
    return bias + dense @ weight.T + sum(rows(combiner))


def fm(p, rows, dense, combiner):
    bias, weight = p(TASKS), p(TASKS, DENSE)
    features = rows(combiner)
    logits = bias + dense @ weight.T + sum(f[:, :TASKS] for f in features)
    vectors = [f[:, TASKS:].reshape(EXAMPLES, TASKS, K) for f in features]
    for i in range(len(vectors)):
        for j in range(i):
            logits = logits + (vectors[i] * vectors[j]).sum(2)
    return logits


def deepfm(p, rows, dense, combiner):
    bias, weight = p(TASKS), p(TASKS, DENSE)
    features = rows(combiner)
    vectors = [f[:, TASKS:] for f in features]
    logits = bias + dense @ weight.T + sum(f[:, :TASKS] for f in features)
    pair = p(TASKS, K)
    run = perceptron(p, len(vectors) * K + DENSE, [6, 5], norm=True)
    head = p(TASKS, 5)
    for i in range(len(vectors)):
        for j in range(i):
            logits = logits + (vectors[i] * vectors[j]) @ pair.T
    return logits + run(torch.cat(vectors + [dense], 1)) @ head.T


def dcn(p, rows, dense, combiner):
    x0 = torch.cat(rows(combiner, lambda: p(K)) + [dense], 1)
    width = x0.shape[1]
    x = x0
    for _ in range(2):
        x = x0 * functional.linear(x, p(width, width), p(width)) + x
    cross_head = p(TASKS, width)
    hidden = perceptron(p, width, [6, 5], norm=False)(x0)
    return x @ cross_head.T + functional.linear(hidden, p(TASKS, 5), p(TASKS))


def dlrm(p, rows, dense, combiner):
    bottom = perceptron(p, DENSE, [5, K], norm=False)(dense)
    z = torch.stack([bottom] + rows(combiner, lambda: p(K)), 1)
    products = torch.bmm(z, z.transpose(1, 2))
    i, j = torch.tril_indices(z.shape[1], z.shape[1], offset=-1)
    t = torch.cat([bottom, products[:, i, j]], 1)
    hidden = perceptron(p, t.shape[1], [6, 5], norm=False)(t)
    return functional.linear(hidden, p(TASKS, 5), p(TASKS))


def model(function, width, combiner):
    p = Parameters()
    tables = [fill(ROWS * width, 100 + t).reshape(ROWS, width).requires_grad_() for t in range(3)]

    def rows(combiner, make_query=None):
        result = []
        for index, (table, lists) in enumerate(FEATURES):
            kind = combiner if index == 1 else "sum"
            query = make_query() if kind == "attention" else None
            result.append(combine(tables[table], lists, kind, query))
        return result

    dense = fill(EXAMPLES * DENSE, 200, 1).reshape(EXAMPLES, DENSE)
    labels = torch.tensor([[(e + 2 * t) % 3 == 0 for t in range(TASKS)] for e in range(EXAMPLES)]).double()
    weights = torch.tensor([[float((e + t) % 3) for t in range(TASKS)] for e in range(EXAMPLES)])
    logits = function(p, rows, dense, combiner)
    losses = (weights * functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")).sum(0)
    losses.sum().backward()
    return [logits, losses] + [t.grad for t in p.tensors] + [t.grad for t in tables]


def mixer_block(p, tokens, channels, token_hidden, channel_hidden):
    def step(width, hidden):
        scale, shift = p(channels), p(channels)
        inner, outer = (p(hidden, width), p(hidden)), (p(width, hidden), p(width))
        normal = lambda x: functional.layer_norm(x, (channels,), scale, shift)
        mix = lambda x: functional.linear(functional.gelu(functional.linear(x, *inner)), *outer)
        return normal, mix

    token_norm, token_mix = step(tokens, token_hidden)
    channel_norm, channel_mix = step(channels, channel_hidden)

    def run(x):
        u = x + token_mix(token_norm(x).transpose(1, 2)).transpose(1, 2)
        return u + channel_mix(channel_norm(u))

    return run


def mixer():
    tokens, channels = 3, 5
    p = Parameters()
    run = mixer_block(p, tokens, channels, 4, 6)
    x = fill(EXAMPLES * tokens * channels, 300, 1).reshape(EXAMPLES, tokens, channels).requires_grad_()
    y = run(x)
    (y * fill(y.numel(), 301).reshape(y.shape)).sum().backward()
    return [y, x.grad] + [t.grad for t in p.tensors]


def optimizer(make):
    values = nn.Parameter(fill(6, 0))
    steps = make([values])
    for step in range(5):
        values.grad = fill(6, step + 1)
        steps.step()
    return [values]


def write(name, arrays):
    print(f"  static let {name}: [[Float]] = [")
    for array in arrays:
        numbers = [f"{x:.7g}" for x in numpy.ravel(array.detach().numpy())]
        lines, line = [], "   "
        for number in numbers:
            if len(line) + len(number) > 116:
                lines.append(line)
                line = "   "
            line += f" {number},"
        lines.append(line)
        print("    [\n" + "\n".join("  " + line for line in lines) + "\n    ],")
    print("  ]")


if __name__ == "__main__":
    print(f"// Written by Tests/Golden/layers.py with PyTorch {torch.__version__.split('+')[0]} in float64; do not edit.\n")
    print("enum Golden {")
    write("logistic", model(logistic, TASKS, "mean"))
    write("fm", model(fm, TASKS + TASKS * K, "mean"))
    write("deepfm", model(deepfm, TASKS + K, "mean"))
    write("dcn", model(dcn, K, "attention"))
    write("dlrm", model(dlrm, K, "attention"))
    write("mixer", mixer())
    write("sgd", optimizer(lambda p: torch.optim.SGD(p, lr=0.1)))
    write("adagrad", optimizer(lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.1, eps=1e-8)))
    write("adam", optimizer(lambda p: torch.optim.Adam(p, lr=0.1)))
    write("adamw", optimizer(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2)))
    print("}")
