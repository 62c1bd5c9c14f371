import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import InvalidArgumentError, InvalidTypeError, UnsupportedModelError
from tfprune.structured import block_costs, drop_blocks, find_blocks

layers = keras.layers


def names(model, single_layers=False):
    return [b.name for b in find_blocks(model) if b.is_single_layer == single_layers]


def block_named(model, name):
    return next(block for block in find_blocks(model) if block.name == name)


def scaled_chain(*factors):
    """Return a model of blocks y = x + c * x, named r0, r1, ...: each multiplies by 1 + c."""
    inputs = x = keras.Input((2,))
    for index in range(len(factors)):
        x = layers.Add(name=f"r{index}")([x, layers.Dense(2, name=f"scale{index}")(x)])
    model = keras.Model(inputs, x)
    for index, factor in enumerate(factors):
        model.get_layer(f"scale{index}").set_weights([factor * np.eye(2), np.zeros(2)])
    return model


def small_resnet(name="net"):
    """Return a net of two stages: a projection block, two identity blocks, an inline one."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for index, width in enumerate((8, 12, 12)):
        shortcut = x if x.shape[-1] == width else layers.Conv2D(width, 1, name="project")(x)
        branch = layers.Conv2D(width, 3, padding="same", name=f"conv{index}a")(x)
        branch = layers.BatchNormalization(name=f"norm{index}a")(branch)
        branch = layers.ReLU()(branch)
        branch = layers.Conv2D(width, 3, padding="same", name=f"conv{index}b")(branch)
        branch = layers.BatchNormalization(name=f"norm{index}b")(branch)
        x = layers.Add(name=f"add{index}")([shortcut, branch])
        x = layers.ReLU(name=f"out{index}")(x)
    x = x + layers.Conv2D(12, 1, name="inline")(x)
    return keras.Model(inputs, x, name=name)


def encoder(norm_first):
    """Return a transformer encoder of two blocks, with inline additions."""
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 8, mask_zero=True)(tokens)
    for index in range(2):
        norms = [layers.LayerNormalization(name=f"norm{index}{part}") for part in "ab"]
        attention = layers.MultiHeadAttention(2, 4, name=f"attention{index}")
        mlp = [
            layers.Dense(16, activation="gelu", name=f"up{index}"),
            layers.Dense(8, name=f"down{index}"),
        ]
        y = norms[0](x) if norm_first else x
        x = x + attention(y, y)
        x = x if norm_first else norms[0](x)
        y = norms[1](x) if norm_first else x
        x = layers.Add(name=f"mlp{index}")([x, mlp[1](mlp[0](y))])
        x = x if norm_first else norms[1](x)
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def randomize(model):
    """Give every weight, statistics included, a value that matters."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        noise = rng.uniform(0.5, 1.5, weight.shape)
        weight.assign(weight * noise if len(weight.shape) > 1 else noise)


def assert_drops_exactly(model, name, inputs):
    """Compare the model without a block with the model whose branch there adds zero."""
    block = block_named(model, name)
    smaller, whole = drop_blocks(model, name), keras.ops.convert_to_numpy(model(inputs))
    last = [layer for layer in block.layers if layer.weights][-1]
    # The last layer's scale and offset, or kernel and bias; of attention the output projection.
    silenced = getattr(last, "_output_dense", last).trainable_weights
    before = [keras.ops.convert_to_numpy(weight) for weight in silenced]
    for weight in silenced:
        weight.assign(keras.ops.zeros_like(weight))
    assert_close(smaller, model, inputs)
    assert np.abs(smaller(inputs) - whole).max() > 0
    for weight, value in zip(silenced, before, strict=True):
        weight.assign(value)
    return smaller


def assert_close(first, second, *inputs):
    outputs = [keras.ops.convert_to_numpy(model(*inputs)) for model in (first, second)]
    scale = np.abs(outputs[1]).max()
    assert np.isfinite(outputs[0]).all()
    assert scale > 0
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("make", "blocks", "first", "parameters"),
    [
        ("ResNet50", 12, "conv2_block2_add", 71_552),
        ("ResNet50V2", 9, "conv2_block2_out", 71_424),
        ("MobileNetV2", 10, "block_2_add", 9_456),
        ("EfficientNetB0", 9, "block2b_add", 11_334),
    ],
)
def test_identity_blocks_of_keras_applications_are_dropped(make, blocks, first, parameters):
    make = getattr(keras.applications, make)
    model = make(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            randomize(layer)
    assert len(names(model)) == blocks
    assert names(model)[0] == first
    assert block_named(model, first).parameters == parameters
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    smaller = assert_drops_exactly(model, first, images)
    assert model.count_params() - smaller.count_params() == parameters


def test_a_block_is_found_with_its_layers_and_its_shortcut():
    model = small_resnet()
    # The projection has a layer on its shortcut, so nothing can stand for the sum.
    assert names(model)[:2] == ["add0", "add2"]
    assert len(names(model)) == 3
    block = block_named(model, "add0")
    assert block.shortcut is model.get_layer("stem").output
    assert block.merge is model.get_layer("add0")
    inside = [layer.name for layer in block.layers if layer.weights]
    assert inside == ["conv0a", "norm0a", "conv0b", "norm0b"]
    assert block.parameters == 2 * (8 * 8 * 9 + 8) + 2 * 4 * 8
    assert [layer.name for layer in find_blocks(model)[-1].layers] == ["inline"]


def test_the_kept_weights_and_flags_and_names_are_the_models_own():
    model = small_resnet()
    randomize(model)
    model.get_layer("conv1a").trainable = False
    model.compile("adam", "mse")
    before = {weight.path: weight.numpy() for weight in model.weights}
    calls = [len(operation._inbound_nodes) for operation in model.operations]
    smaller = drop_blocks(model, "add2")
    assert smaller.name == "net"
    assert not smaller.compiled
    gone = {"add2", "conv2a", "norm2a", "conv2b", "norm2b", "re_lu_2"}
    assert [x.name for x in smaller.layers] == [x.name for x in model.layers if x.name not in gone]
    assert not smaller.get_layer("conv1a").trainable
    for weight in smaller.weights:
        assert np.array_equal(weight.numpy(), before[weight.path])
        weight.assign(weight * 0)
    assert all(np.array_equal(weight.numpy(), before[weight.path]) for weight in model.weights)
    assert [len(operation._inbound_nodes) for operation in model.operations] == calls


def test_nothing_in_the_smaller_model_holds_on_to_what_was_dropped():
    smaller = drop_blocks(small_resnet(), ["add0", "add2"])
    users = {node.operation for op in smaller.operations for node in op._outbound_nodes}
    assert users <= set(smaller.operations)


@pytest.mark.parametrize("norm_first", [True, False])
def test_attention_and_mlp_of_a_transformer_are_dropped(norm_first):
    model = encoder(norm_first)
    randomize(model)
    found = names(model)
    assert len(found) == 4
    # Inline additions have automatic names.
    assert found[1::2] == ["mlp0", "mlp1"]
    tokens = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 9]])
    for name in found[:2]:
        smaller = assert_drops_exactly(model, name, tokens)
        assert names(smaller) == [other for other in found if other != name]
        reloaded = keras.Model.from_config(smaller.get_config())
        reloaded.set_weights(smaller.get_weights())
        assert np.array_equal(reloaded(tokens), smaller(tokens))


def test_the_timestep_mask_passes_along_the_shortcut():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(tokens)
    y = layers.Add(name="join")([x, layers.LSTM(4, return_sequences=True)(x)])
    y = layers.LSTM(4, return_sequences=True, name="single")(y)
    model = keras.Model(tokens, layers.LSTM(3)(y))
    assert names(model, single_layers=True) == ["single"]
    smaller = drop_blocks(model, "join")
    short, padded = np.array([[1, 2]]), np.array([[1, 2, 0, 0, 0]])
    _, embedding, *lstms = smaller.layers
    assert_close(smaller, lambda _: lstms[1](lstms[0](embedding(short))), padded)
    assert names(smaller, single_layers=True) == ["single"]


def test_the_cost_is_the_relative_change_of_the_outputs():
    model = scaled_chain(0.1, 1.0, 3.0)
    x = np.random.default_rng(0).normal(size=(70, 2)).astype("float32")
    costs = block_costs(model, x)
    # Without y = (1 + c) x the output is 1 / (1 + c) of what it was.
    expected = {"r0": (0.1 / 1.1) ** 2, "r1": 0.25, "r2": 0.5625}
    assert costs == pytest.approx(expected, rel=1e-4)


def test_the_cost_is_the_rise_of_a_compiled_loss():
    model = scaled_chain(1.0, -0.25)
    x, y = np.array([[1.0, 2.0]]), np.array([[1.5, 3.0]])
    model.compile("sgd", "mse", metrics=["mae"])
    # The model gives 1.5 x, so it is right; without r0 0.75 x, without r1 2 x.
    mean_square = 2.5
    expected = {"r0": 0.75**2 * mean_square, "r1": 0.5**2 * mean_square}
    assert block_costs(model, (x, y)) == pytest.approx(expected)
    assert block_costs(model, x) == pytest.approx({"r0": 0.25, "r1": (0.5 / 1.5) ** 2})


def test_the_loss_is_the_one_that_evaluate_gives():
    model = small_resnet()
    randomize(model)
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 8, 8, 3)), rng.random((40, 8, 8, 12))
    model.compile("sgd", "mse", run_eagerly=True)
    costs = block_costs(model, (x, y))
    base = model.evaluate(x, y, verbose=0)
    for name in names(model):
        smaller = drop_blocks(model, name)
        smaller.compile("sgd", "mse", run_eagerly=True)
        rise = smaller.evaluate(x, y, verbose=0) - base
        assert costs[name] == pytest.approx(rise, rel=1e-4, abs=1e-5 * base)


def test_running_without_a_block_changes_nothing_in_the_model():
    model = small_resnet()
    model.compile("sgd", "mse", metrics=["mae"])
    rng = np.random.default_rng(0)
    before = [keras.ops.convert_to_numpy(v) for v in (*model.variables, *model.metrics_variables)]
    block_costs(model, (rng.random((4, 8, 8, 3)), rng.random((4, 8, 8, 12))))
    after = [keras.ops.convert_to_numpy(v) for v in (*model.variables, *model.metrics_variables)]
    assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))


def test_blocks_are_chosen_one_after_another():
    # Together r1 and r2 cancel, but each alone changes much; r3 is cheapest, then r0.
    model = scaled_chain(0.2, 1.0, -0.5, 0.1)
    x = np.ones((8, 2), "float32")
    assert names(drop_blocks(model, 1, x)) == ["r0", "r1", "r2"]
    assert names(drop_blocks(model, 2, x)) == ["r1", "r2"]
    # Without r0, r3 and r2 the output doubles; the pair that cancels goes together.
    assert names(drop_blocks(model, 4, x)) == []


def test_the_greedy_choice_is_that_of_trying_all_by_hand():
    model = small_resnet()
    randomize(model)
    x = np.random.default_rng(0).random((16, 8, 8, 3)).astype("float32")
    reference, chosen = np.array(model(x)), []
    for _ in range(2):
        left = [name for name in names(model) if name not in chosen]
        changes = [
            np.square(np.array(drop_blocks(model, [*chosen, name])(x)) - reference).sum()
            for name in left
        ]
        chosen.append(left[int(np.argmin(changes))])
    assert set(names(model)) - set(names(drop_blocks(model, 2, x))) == set(chosen)


def test_a_smaller_model_trains_and_is_saved_and_exported(tmp_path):
    model = small_resnet()
    x = np.random.default_rng(0).random((8, 8, 8, 3)).astype("float32")
    smaller = drop_blocks(model, 2, x)
    smaller.compile("adam", "mse")
    smaller.fit(x, np.zeros((8, 8, 8, 12)), verbose=0)
    smaller.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(smaller(x), loaded(x))
    report = tfprune.export_model(smaller, tmp_path / "build", formats=["savedmodel"])
    assert report.names == ["savedmodel"]


def test_layers_of_equal_width_go_from_a_model_without_residual_blocks(dense_data):
    net = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="d1", activation="relu")])
    for name in ("d2", "d3", "d4"):
        net.add(layers.Dense(8, name=name))
        net.add(layers.BatchNormalization())
    net.get_layer("d3").set_weights([np.eye(8), np.zeros(8)])
    net.add(layers.Dense(8, name="head"))
    # The head makes the output, and a normalization is no step of its own.
    assert names(net, single_layers=True) == ["d1", "d2", "d3", "d4"]
    smaller = drop_blocks(net, 1, dense_data[0])
    assert "d3" not in [layer.name for layer in smaller.layers]
    assert_close(smaller, net, dense_data[0])
    assert block_costs(net, dense_data[0])["d3"] == 0
    x = net.get_layer("d1")(dense_data[0])
    for layer in net.layers[2:]:
        x = layer(x)
    assert_close(drop_blocks(net, ["d2"]), lambda _: x, dense_data[0])


def test_layers_alone_go_from_a_residual_model_only_by_name():
    model = small_resnet()
    single = names(model, single_layers=True)
    assert single == ["conv1b"]
    x = np.ones((2, 8, 8, 3), "float32")
    assert "conv1b" in [layer.name for layer in drop_blocks(model, 3, x).layers]
    assert "conv1b" not in [layer.name for layer in drop_blocks(model, "conv1b").layers]


def test_blocks_inside_of_nested_models_are_found_and_dropped():
    backbone = small_resnet("backbone")
    head = keras.Sequential([layers.Dense(12, name="h1"), layers.Dense(3, name="h2")], name="head")
    pool = layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((8, 8, 3)), backbone, pool, head])
    randomize(model)
    assert names(model)[:2] == ["backbone/add0", "backbone/add2"]
    assert "head/h1" in names(model, single_layers=True)
    smaller = drop_blocks(model, ["backbone/add0", "head/h1"])
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
    expected = drop_blocks(backbone, "add0")
    assert_close(smaller, lambda x: head.get_layer("h2")(pool(expected(x))), x)
    assert set(block_costs(model, x)) == {block.name for block in find_blocks(model)}
    assert names(drop_blocks(model, 3, x)) == []


def test_a_nested_model_that_is_called_twice_loses_the_block_in_both_calls():
    twin = small_resnet("twin")
    randomize(twin)
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([left, right], layers.Subtract()([twin(left), twin(right)]))
    rng = np.random.default_rng(0)
    x = [rng.random((2, 8, 8, 3)).astype("float32") for _ in range(2)]
    expected = drop_blocks(twin, "add0")
    assert_close(drop_blocks(model, "twin/add0"), lambda x: expected(x[0]) - expected(x[1]), x)


def test_a_block_within_a_block_goes_with_it():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    x = layers.Add(name="inner")([x, layers.Dense(4, name="b")(x)])
    x = layers.Add(name="outer")([inputs, x])
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    assert names(model) == ["inner", "outer"]
    both = [drop_blocks(model, ["inner", "outer"]), drop_blocks(model, 2, np.ones((4, 4)))]
    for smaller in both:
        assert [layer.name for layer in smaller.layers[1:]] == ["head"]
    assert [x.name for x in drop_blocks(model, "inner").layers[1:]] == ["a", "outer", "head"]


def test_a_branch_that_is_used_elsewhere_stays_where_it_is_needed():
    inputs = keras.Input((4,))
    first = layers.Dense(4, name="first")(inputs)
    second = layers.Dense(4, name="second")(first)
    x = layers.Add(name="join")([inputs, second])
    model = keras.Model(inputs, {"x": layers.Dense(2)(x), "extra": layers.Dense(3)(first)})
    block = block_named(model, "join")
    assert [layer.name for layer in block.layers] == ["second"]
    smaller = drop_blocks(model, "join")
    x = np.ones((2, 4), "float32")
    assert np.array_equal(smaller(x)["extra"], model(x)["extra"])
    assert set(block_costs(model, x)) == {"join", "first"}


def test_cross_attention_is_a_block():
    inputs, memory = keras.Input((5, 4)), keras.Input((3, 4))
    encoded = layers.Dense(4, name="encoder")(memory)
    x = inputs + layers.MultiHeadAttention(2, 4, name="cross")(inputs, encoded)
    model = keras.Model([inputs, memory], layers.Dense(2, name="head")(x))
    (block,) = [block for block in find_blocks(model) if not block.is_single_layer]
    assert [layer.name for layer in block.layers] == ["encoder", "cross"]
    smaller = drop_blocks(model, block.name)
    x = [np.ones((2, 5, 4), "float32"), np.ones((2, 3, 4), "float32")]
    assert_close(smaller, lambda x: model.get_layer("head")(x[0]), x)


def test_a_branch_with_several_outputs_is_dropped():
    inputs = keras.Input((4,))
    halves = keras.ops.split(layers.Dense(8)(inputs), 2, axis=-1)
    x = layers.Add(name="join")([halves[1] * keras.ops.sigmoid(halves[0]), inputs])
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    smaller = drop_blocks(model, "join")
    x = np.ones((2, 4), "float32")
    assert np.array_equal(smaller(x), model.get_layer("head")(x))
    assert names(drop_blocks(model, 1, x)) == []


def test_what_is_no_block():
    inputs, other = keras.Input((4,)), keras.Input((4,))
    shared, add = layers.Dense(4), layers.Add()
    x = layers.Add(name="shared branch")([inputs, shared(inputs)])
    x = layers.Add(name="other input")([x, layers.Dense(4)(other)])
    x = layers.Add(name="partly other")([x, layers.Dense(4)(x), layers.Dense(4)(other)])
    x = layers.Add(name="no parameters")([x, layers.ReLU()(x)])
    x = layers.Add(name="itself")([x, x, layers.Dense(4)(x)])
    x = layers.Subtract(name="no sum")([x, layers.Dense(4)(x)])
    x = add([x, layers.Dense(4)(x)])
    x = add([x, layers.Dense(4)(x)])
    x = layers.Add(name="broadcast")([x, layers.Dense(1)(x)]) + 1
    one = layers.Dense(1)(x)
    x = layers.Add(name="widened")([one, layers.Dense(4)(one)])
    x = layers.Concatenate()([shared(x), x])
    assert names(keras.Model([inputs, other], x)) == ["broadcast"]


def test_a_model_of_float16_is_dropped_from():
    layer = {"dtype": "mixed_bfloat16"}
    inputs = keras.Input((4,))
    x = layers.Dense(4, **layer)(inputs)
    x = layers.Add(name="join", **layer)([x, layers.Dense(4, **layer)(x)])
    model = keras.Model(inputs, layers.Dense(4, **layer)(x))
    assert block_costs(model, np.ones((4, 4), "float32"))["join"] > 0
    assert drop_blocks(model, 1, np.ones((4, 4))).layers[-1].dtype_policy.name == "mixed_bfloat16"


class Own(keras.Model):
    def call(self, x):
        return x


def test_models_that_cannot_be_taken_apart_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"is a Own: a class of its own"):
        find_blocks(Own())
    with pytest.raises(UnsupportedModelError, match="not built"):
        find_blocks(keras.Sequential([layers.Dense(4)]))
    with pytest.raises(UnsupportedModelError, match=r"tfprune\.strip"):
        drop_blocks(tfprune.prune(small_resnet(), 0.5), "add0")
    with pytest.raises(InvalidTypeError, match="Expected a Keras model"):
        find_blocks("model")


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        ("r9", InvalidArgumentError, "no block named 'r9'.*Known: r0, r1"),
        (["r0", "r8", "r9"], InvalidArgumentError, "no block named 'r8', 'r9'"),
        ([], InvalidArgumentError, "no block named nothing"),
        (0, InvalidArgumentError, "from 1 to 2.*Received: 0"),
        (3, InvalidArgumentError, "from 1 to 2.*r0, r1. Received: 3"),
        (1, InvalidArgumentError, "pass `data=x`"),
        (True, InvalidTypeError, "a number of blocks or the names"),
        (0.5, InvalidTypeError, "a number of blocks or the names"),
        ([1, 2], InvalidTypeError, "a number of blocks or the names"),
    ],
)
def test_bad_choices_are_refused(blocks, error, message):
    with pytest.raises(error, match=message):
        drop_blocks(scaled_chain(0.1, 0.2), blocks)


def test_a_model_without_blocks_says_so():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert find_blocks(model) == []
    assert block_costs(model, np.ones((2, 4))) == {}
    with pytest.raises(InvalidArgumentError, match="nothing to leave out"):
        drop_blocks(model, "d1")
