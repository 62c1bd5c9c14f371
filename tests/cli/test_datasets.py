"""The data sources of the demo."""

import numpy as np
import pytest

from tfprune.cli import datasets
from tfprune.cli.datasets import load_dataset
from tfprune.errors import ArtifactError, MissingDependencyError


def assert_well_formed(data):
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert x.ndim == 4
        assert len(x) == len(y) > 0
        assert x.min() >= 0
        assert x.max() <= 1
        assert y.min() >= 0
        assert y.max() < data.classes


def test_digits_come_with_scikit_learn_and_are_split_the_same_way_every_time():
    data = load_dataset("digits")
    assert_well_formed(data)
    assert data.x_train.shape == (1437, 8, 8, 1)
    assert data.x_test.shape == (360, 8, 8, 1)
    assert data.classes == 10
    assert np.bincount(data.y_test).min() >= 35  # Every class is in the test.
    np.testing.assert_array_equal(data.x_test, load_dataset("digits").x_test)


def test_missing_scikit_learn_is_named_with_its_extra(monkeypatch):
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'tfprune\[demo\]'"):
        load_dataset("digits")


@pytest.mark.skipif(
    not datasets.FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
def test_fashion_mnist_comes_from_the_debian_package():
    data = load_dataset("fashion-mnist")
    assert_well_formed(data)
    assert data.x_train.shape == (60000, 28, 28, 1)
    assert data.x_test.shape == (10000, 28, 28, 1)
    assert np.bincount(data.y_train).tolist() == [6000] * 10


def test_missing_fashion_mnist_is_an_error_that_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "FASHION_MNIST", tmp_path / "absent")
    with pytest.raises(ArtifactError, match="apt-get install dataset-fashion-mnist"):
        load_dataset("fashion-mnist")


def test_an_idx_folder_is_scaled_and_gets_a_channel_axis(tmp_path, write_idx_folder):
    data = load_dataset(str(write_idx_folder(tmp_path / "shades", suffix=".gz")))
    assert_well_formed(data)
    assert data.name == "shades"
    assert data.x_train.shape == (6, 8, 8, 1)
    assert data.x_train[1, 0, 0, 0] == pytest.approx(220 / 255)
    assert data.classes == 2


def test_one_fifth_of_an_image_folder_is_held_out(tmp_path, write_image_folder):
    folder = write_image_folder(tmp_path / "shades")
    data = load_dataset(str(folder), image_size=16)
    assert_well_formed(data)
    assert data.x_train.shape == (16, 16, 16, 3)
    assert data.x_test.shape == (4, 16, 16, 3)
    # The label is the class of the shade: labels were not torn from their images.
    np.testing.assert_array_equal(data.x_train[:, 0, 0, 0] > 0.5, data.y_train == 1)


@pytest.mark.parametrize("test_name", ["test", "validation"])
def test_train_and_test_folders_are_kept_apart(tmp_path, write_image_folder, test_name):
    write_image_folder(tmp_path / "train", count=5)
    write_image_folder(tmp_path / test_name, count=2)
    data = load_dataset(str(tmp_path), image_size=8)
    assert_well_formed(data)
    assert len(data.x_train) == 10
    assert len(data.x_test) == 4
    assert data.classes == 2


def test_train_and_test_folders_must_have_the_same_classes(tmp_path, write_image_folder):
    write_image_folder(tmp_path / "train", count=1)
    write_image_folder(tmp_path / "test", classes=("dark", "gray"), count=1)
    with pytest.raises(ArtifactError, match=r"same class folders.*'light'.*'gray'"):
        load_dataset(str(tmp_path))


def test_images_that_would_not_fit_in_memory_are_refused_before_they_are_read(
    tmp_path, write_image_folder
):
    folder = write_image_folder(tmp_path / "shades", count=5)
    with pytest.raises(ArtifactError, match=r"need 1117\.6 GiB of memory.*smaller --image-size"):
        load_dataset(str(folder), image_size=100_000)


def test_an_image_that_cannot_be_decoded_is_an_error_that_names_the_folder(
    tmp_path, write_image_folder
):
    folder = write_image_folder(tmp_path / "shades")
    (folder / "dark" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ArtifactError, match="shades: an image cannot be decoded"):
        load_dataset(str(folder), image_size=8)


def test_a_folder_of_too_few_images_to_hold_some_out_is_refused(tmp_path, write_image_folder):
    folder = write_image_folder(tmp_path / "shades", count=1)
    with pytest.raises(ArtifactError, match=r"at least 5 images\. Received: 2 images in 2"):
        load_dataset(str(folder), image_size=8)


def test_a_folder_without_data_is_an_error_that_says_what_is_expected(tmp_path):
    with pytest.raises(ArtifactError, match=r"expected idx files, or one subfolder.*0 images"):
        load_dataset(str(tmp_path))


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ArtifactError, match="digits, fashion-mnist or an existing folder"):
        load_dataset("imagenet")
