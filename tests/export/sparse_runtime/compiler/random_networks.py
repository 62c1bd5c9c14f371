"""Random convolutional networks: every layer that the compiler knows, and some that it does not."""

import numpy as np

from tests.export.sparse_runtime.compiler.networks import Network


def random_network(seed):
    """Return a network and its outputs."""
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 3, 3, 5]))
    size = (int(rng.integers(9, 25)), int(rng.integers(9, 25)))
    net = Network((*size, channels), seed=seed, sparsity=float(rng.choice([0.6, 0.8, 0.95])))
    x = net.inputs[0]
    if rng.random() < 0.5:
        even = ((1, 1), (1, 1))
        padding = "same" if rng.random() < 0.5 else even
        x = net.conv(x, int(rng.integers(4, 17)), 3, 2, padding, activation=1)
    earlier = [x]
    for _ in range(int(rng.integers(2, 9))):
        x = _layer(rng, net, x, earlier)
        earlier.append(x)
    outputs = [_head(rng, net, x)]
    if rng.random() < 0.2:
        outputs.append(net.mean(earlier[len(earlier) // 2]))
    return net, outputs


def _layer(rng, net, x, earlier):
    count = int(rng.choice([3, 8, 12, 20]))
    _, rows, columns, channels = x.shape
    roomy = min(rows, columns) >= 4
    choices = {
        "conv": lambda: net.conv(
            x, count, int(rng.choice([1, 1, 3, 3, 5])), activation=int(rng.choice([0, 1, 3]))
        ),
        "asymmetric": lambda: net.conv(net.conv(x, count, (1, 5)), count, (3, 1), activation=1),
        "depthwise": lambda: net.depthwise(
            x, int(rng.choice([3, 5, 7])), multiplier=int(rng.choice([1, 1, 2])), activation=1
        ),
        "affine": lambda: net.affine(x),
        "unary": lambda: net.unary(str(rng.choice(["RELU", "HARD_SWISH", "LOGISTIC", "ABS"])), x),
        "residual": lambda: net.add(x, net.conv(net.conv(x, count, 3), channels, 1), 1),
        "concat": lambda: net.concat(net.conv(x, count, 1, activation=1), x, net.conv(x, 4, 3)),
        "shortcut": lambda: _shortcut(rng, net, x, earlier),
        "excite": lambda: net.multiply(
            x, net.unary("LOGISTIC", net.conv(net.mean(x, keep_axes=True), channels, 1))
        ),
        "dilated": lambda: net.conv(x, count, 3, dilation=2),
        "pool": lambda: net.max_pool(x, 3, 1, "same"),
        "average": lambda: net.average_pool(x, 3, 1, "same"),
    }
    if roomy:
        choices |= {
            "strided": lambda: net.conv(
                x, count, int(rng.choice([1, 3])), 2, activation=int(rng.choice([0, 1]))
            ),
            "strided depthwise": lambda: net.depthwise(x, int(rng.choice([3, 5])), 2),
            "pool down": lambda: net.max_pool(net.relu(x), int(rng.choice([2, 3])), 2, "same"),
            "average down": lambda: net.average_pool(x, 2, 2),
            "valid": lambda: net.conv(x, count, 3, int(rng.choice([1, 2])), "valid", 1),
        }
    else:
        choices |= {
            "bilinear": lambda: net.upsample(x) if min(rows, columns) > 1 else net.relu(x),
            "copied": lambda: net.tiled(x),
            "transposed": lambda: net.transposed(x, count, int(rng.choice([2, 3])), 2),
        }
    return choices[str(rng.choice(sorted(choices)))]()


def _shortcut(rng, net, x, earlier):
    """Join a map from before, of the same size, however many channels it has."""
    same = [tensor for tensor in earlier if tensor.shape[:3] == x.shape[:3]]
    other = same[int(rng.integers(len(same)))] if same else x
    return (
        net.concat(x, other) if rng.random() < 0.5 else net.add(x, net.conv(other, x.shape[3], 1))
    )


def _head(rng, net, x):
    kind = rng.choice(["mean", "mean", "convolution", "pixels", "flat"])
    if kind == "mean":
        return net.dense(net.mean(x), 5)
    if kind == "convolution":  # As in Keras's MobileNet.
        return net.conv(net.mean(x, keep_axes=True), 5, 1)
    if kind == "pixels":
        return net.unary("LOGISTIC", net.conv(x, 3, 1))
    return net.dense(net.mean(net.relu(x)), 3)
