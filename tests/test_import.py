import inspect

import pytest

import tfprune

PUBLIC = [
    (f"{module}.{name}" if module else name, value)
    for module, source in [("", tfprune)]
    + [(m, getattr(tfprune, m)) for m in tfprune.__all__ if inspect.ismodule(getattr(tfprune, m))]
    for name, value in ((n, getattr(source, n)) for n in getattr(source, "__all__", []))
    if inspect.isclass(value) or inspect.isfunction(value)
]


def test_a_bare_import_loads_no_tensorflow(run_python):
    light = "tfprune.masks, tfprune.schedules, tfprune.patterns, tfprune.criteria, tfprune.cli"
    run_python(
        f"import sys, tfprune, {light}\nassert not {{'tensorflow', 'keras'}} & set(sys.modules)"
    )


@pytest.mark.parametrize("order", ["import keras, tfprune", "import tfprune, keras"])
def test_wrappers_are_registered_with_keras_in_either_order(order, run_python):
    run_python(f"{order}\nassert 'tfprune>Pruned' in keras.saving.get_custom_objects()")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prone'"):
        _ = tfprune.prone


def test_every_public_name_resolves_and_is_listed():
    assert tfprune.__all__ == sorted(tfprune.__all__)
    assert set(tfprune.__all__) == set(dir(tfprune))
    assert len(PUBLIC) > 20


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_every_public_name_and_method_has_a_docstring(name, value):
    assert inspect.getdoc(value)
    for member, function in vars(value).items() if inspect.isclass(value) else ():
        if not member.startswith("_") and inspect.isfunction(function):
            assert function.__doc__, f"{name}.{member}"


def test_a_tf_keras_model_is_refused_by_name(run_python):
    pytest.importorskip("tf_keras", reason="pip install 'tfprune[tfmot]'")
    run_python(
        """
        import keras, tf_keras, tfprune
        model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
        for call in (lambda: tfprune.prune(model, 0.5), lambda: tfprune.plan(model)):
            try:
                call()
            except tfprune.errors.UnsupportedModelError as error:
                assert "tf_keras" in str(error)
            else:
                raise AssertionError("accepted")
        """
    )
