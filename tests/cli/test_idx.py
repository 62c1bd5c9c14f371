"""idx files: what is read, and that a damaged file is refused before it takes memory."""

import gzip
import struct

import numpy as np
import pytest

from tfprune.cli.idx import read_idx, read_idx_folder
from tfprune.errors import ArtifactError


def header(*shape):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


HEADER_2X3 = header(2, 3)


def test_a_file_is_read_in_the_order_of_its_header(tmp_path):
    path = tmp_path / "two-by-three"
    path.write_bytes(HEADER_2X3 + bytes(range(6)))
    np.testing.assert_array_equal(read_idx(path), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_gives_images_and_labels_of_both_splits(tmp_path, write_idx_folder, suffix):
    x_train, y_train, x_test, y_test = read_idx_folder(
        write_idx_folder(tmp_path / "data", suffix=suffix)
    )
    assert (x_train.shape, x_test.shape) == ((6, 8, 8), (4, 8, 8))
    assert x_train[0, 0, 0] == 20
    assert x_train[1, 0, 0] == 220
    assert y_train.tolist() == [0, 1, 0, 1, 0, 1]
    assert y_test.tolist() == [0, 1, 0, 1]


DAMAGED = {
    "not an idx file": (b"PNG and so on", "is not an idx file of unsigned bytes"),
    "floats instead of bytes": (
        bytes([0, 0, 13, 1]) + struct.pack(">I", 1) + b"abcd",
        "is not an idx file of unsigned bytes",
    ),
    "an empty file": (b"", "is not an idx file"),
    "a cut header": (HEADER_2X3[:7], "ends in the middle of its idx header"),
    "cut data": (HEADER_2X3 + b"12345", r"promises 6 bytes of data \(shape \(2, 3\)\).*fewer"),
    "data that goes on": (HEADER_2X3 + b"1234567", "promises 6 bytes.*more"),
    "a header that claims terabytes": (
        header(10**6, 10**4, 10**4) + b"1",
        "promises 100000000000000 bytes",
    ),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path, case, suffix):
    content, message = DAMAGED[case]
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(ArtifactError, match=message):
        read_idx(path)


@pytest.mark.parametrize("cut", [1, 12, -4])
def test_a_cut_gzip_file_is_refused(tmp_path, cut):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(HEADER_2X3 + bytes(6))[:cut])
    with pytest.raises(ArtifactError, match=r"cut\.gz"):
        read_idx(path)


def test_a_missing_file_is_named(tmp_path, write_idx_folder):
    folder = write_idx_folder(tmp_path / "data")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ArtifactError, match=r"t10k-labels-idx1-ubyte\[\.gz\] is missing"):
        read_idx_folder(folder)


def test_images_without_their_labels_are_refused(tmp_path, write_idx_folder):
    folder = write_idx_folder(tmp_path / "data")
    (folder / "train-labels-idx1-ubyte").write_bytes(header(5) + bytes(5))
    with pytest.raises(ArtifactError, match="6 images and 5 labels"):
        read_idx_folder(folder)


def test_labels_in_the_place_of_images_are_refused(tmp_path, write_idx_folder):
    folder = write_idx_folder(tmp_path / "data")
    (folder / "train-images-idx3-ubyte").write_bytes(header(6) + bytes(6))
    with pytest.raises(ArtifactError, match=r"expected 3 dimensions. Received: \(6,\)"):
        read_idx_folder(folder)


def test_splits_of_different_image_sizes_are_refused(tmp_path, write_idx_folder):
    folder = write_idx_folder(tmp_path / "data")
    (folder / "t10k-images-idx3-ubyte").write_bytes(header(4, 9, 9) + bytes(4 * 9 * 9))
    with pytest.raises(ArtifactError, match="images of one size"):
        read_idx_folder(folder)
