"""MNIST: where its files come from. What is wrong with files is tested where they are used."""

from elenas_jax.tasks.mnist import SOURCES, read_mnist
from tests.tasks.image_files import write_mnist


def test_every_file_has_two_sources_and_a_checksum():
    assert len(SOURCES) == 4
    for name, source in SOURCES.items():
        assert len(source.urls) == 2 and list(source.sha256) == [f"mnist/{name}"]


def test_images_and_digits(tmp_path):
    write_mnist(tmp_path, per_digit=2)
    for prefix in ("train", "t10k"):
        images, digits = read_mnist(tmp_path, prefix)
        assert images.shape == (20, 28, 28) and (images[:, 0, 0] == digits).all()
        assert (images[:, 0, 2] == (prefix == "t10k")).all()
