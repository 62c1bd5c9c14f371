"""Metadata in artifacts: written by an export, read back from the files alone."""

import io
import json
import zipfile

import keras
import numpy as np
import onnx
import pytest

import tfprune
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.export import Metadata, metadata_schema
from tfprune.export.flatbuffer import load_model, pack_model
from tfprune.export.tflite_metadata import read_metadata

layers = keras.layers
FORMATS = ["savedmodel", "tflite", "tflite_float16", "onnx"]


def classifier():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(4, 3, name="stem"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="pets",
    )


DESCRIPTION = Metadata(
    labels=["cat", "dog", "älg"],
    normalization=(127.5, 127.5),
    description="Which pet it is.",
    author="A. Nonymous",
    license="Apache-2.0",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = tfprune.prune(classifier(), 0.5, include="head")
    folder = tmp_path_factory.mktemp("metadata") / "out"
    return tfprune.export_model(model, folder, FORMATS, metadata=DESCRIPTION, runs=1)


def record(report, name):
    path = report.path(name)
    if name == "savedmodel":
        return json.loads((path / "assets.extra" / "tfprune.json").read_text())
    if name == "onnx":
        return json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["tfprune"])
    return read_metadata(path.read_bytes())["provenance"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_artifact_says_where_it_comes_from(exported, name):
    found = record(exported, name)
    assert (found["model"], found["format"]) == ("pets", name)
    assert found["versions"]["keras"] == keras.__version__
    assert found["sparsity"] == exported[name].sparsity
    assert found["metadata"]["labels"] == ["cat", "dog", "älg"]
    (plan,) = found["pruning"]  # The model still had its wrappers, so the plan was known.
    assert plan["criterion"]["class_name"] == "Magnitude"


@pytest.mark.parametrize("name", FORMATS)
def test_a_stripped_model_is_described_by_its_zeros(name, tmp_path):
    model = tfprune.prune_once(classifier(), 0.5, include="head")
    found = record(tfprune.export_model(model, tmp_path / "out", name, runs=1), name)
    assert found["pruning"] is None
    assert found["kernel_sparsity"] == {"pets/head/kernel": 0.5} or found["kernel_sparsity"] == {
        "head/kernel": 0.5
    }
    assert found["metadata"] == {}


def test_readers_of_the_standard_find_labels_and_normalization(exported):
    content = exported.path("tflite").read_bytes()
    found = read_metadata(content)
    (graph,) = found["standard"]["subgraph_metadata"]
    (image,), (scores,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
    assert image["content"]["content_properties"] == {"is": "ImageProperties", "color_space": 1}
    options = image["process_units"][0]["options"]
    assert options == {"is": "NormalizationOptions", "mean": [127.5], "std": [127.5]}
    assert scores["associated_files"] == [{"name": "labels.txt", "type": 2}]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt").decode() == "cat\ndog\nälg\n"
    assert found["labels"] == ["cat", "dog", "älg"]
    assert found["standard"]["author"] == "A. Nonymous"


def test_the_flatbuffer_is_the_one_that_the_schema_of_mediapipe_writes():
    # As metadata_schema_py_generated of MediaPipe 1.2.2 reads it, spelled out by hand.
    content = metadata_schema.write({"name": "net"})
    root = int.from_bytes(content[:4], "little")
    table = content[root - int.from_bytes(content[root : root + 4], "little", signed=True) :]
    assert content[4:8] == b"M001"
    name = root + int.from_bytes(table[4:6], "little")  # The first field of the table.
    start = name + int.from_bytes(content[name : name + 4], "little")
    assert content[start : start + 7] == b"\x03\x00\x00\x00net"


def test_two_exports_of_a_model_are_equal(tmp_path):
    contents = []
    model = classifier()
    for folder in ("one", "two"):
        report = tfprune.export_model(
            model, tmp_path / folder, ["tflite", "tflite_float16"], metadata=DESCRIPTION, runs=1
        )
        contents.append([report.path(name).read_bytes() for name in ("tflite", "tflite_float16")])
    assert contents[0] == contents[1]


def test_the_data_of_buffers_lies_at_multiples_of_sixteen_bytes(exported):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(exported.path("tflite").read_bytes(), 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    places = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(places) > 4
    assert all(place % 16 == 0 for place in places)


def test_metadata_is_replaced_and_what_others_wrote_stays(exported):
    content = exported.path("tflite").read_bytes()
    before = [entry.name for entry in load_model(content).metadata]
    assert len(before) == len(set(before)) == 4
    assert b"min_runtime_version" in before
    assert [entry.name for entry in load_model(pack_model(load_model(content))).metadata] == before


def test_labels_are_read_from_a_file(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    assert Metadata(labels=tmp_path / "labels.txt").labels == ("cat", "dog")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": ["cat", 3]}, InvalidTypeError, "one per class"),
        ({"labels": []}, InvalidTypeError, "one per class"),
        ({"labels": ["cat", "d\nog"]}, InvalidArgumentError, "one line that is not empty"),
        ({"labels": "absent.txt"}, InvalidArgumentError, "Cannot read the labels"),
        ({"normalization": 127.5}, InvalidTypeError, r"`\(mean, std\)`"),
        ({"normalization": (0.5, 0)}, InvalidArgumentError, "std above 0"),
        ({"normalization": ([1, 2, 3], [1, 2])}, InvalidArgumentError, "as many of one"),
        ({"author": None}, InvalidTypeError, "`author` must be a string"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        Metadata(**arguments)


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        (Metadata(labels=["cat", "dog"]), InvalidArgumentError, "Received: 2 labels"),
        (Metadata(normalization=([1, 2], 1)), InvalidArgumentError, "one per channel of an input"),
        ({"labels": ["a", "b", "c"]}, InvalidTypeError, "tfprune.export.Metadata"),
    ],
)
def test_metadata_that_does_not_fit_the_model_is_refused(metadata, error, message, tmp_path):
    with pytest.raises(error, match=message):
        tfprune.export_model(classifier(), tmp_path / "out", "tflite", metadata=metadata)
    assert not (tmp_path / "out").exists()


def test_a_packed_savedmodel_keeps_its_index_beside_the_record(tmp_path):
    model = keras.Sequential([keras.Input((128,)), layers.Dense(128)])
    model = tfprune.prune_once(model, 0.9)
    report = tfprune.export_model(model, tmp_path / "out", "savedmodel", packed=True, runs=1)
    names = {path.name for path in (report.path("savedmodel") / "assets.extra").iterdir()}
    assert names == {"packed.json", "tfprune.json"}


def test_several_inputs_are_described_in_the_order_of_the_file(two_inputs, tmp_path):
    metadata = Metadata(labels=["a", "b", "c"], normalization=(np.zeros(4), np.ones(4)))
    report = tfprune.export_model(two_inputs, tmp_path / "out", "tflite", metadata=metadata, runs=1)
    (graph,) = read_metadata(report.path("tflite").read_bytes())["standard"]["subgraph_metadata"]
    normalized = [t["name"] for t in graph["input_tensor_metadata"] if "process_units" in t]
    labelled = [t["name"] for t in graph["output_tensor_metadata"] if "associated_files" in t]
    assert (normalized, labelled) == (["values"], ["class"])
