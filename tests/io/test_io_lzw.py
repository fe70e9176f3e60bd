"""LZW decoding gives what another decoder gives, and leaves to that one what is damaged."""

import imagecodecs
import numpy as np
import pytest

from icestream.io.lzw import decode_lzw

RNG = np.random.default_rng(5)
CONTENT = {
    "counts": RNG.poisson(1.0, 300_000).astype(np.uint8),
    "sparse counts": RNG.poisson(0.01, 300_000).astype(np.uint8),
    "constant": np.full(300_000, 7, dtype=np.uint8),
    "noise": RNG.integers(0, 256, 300_000, dtype=np.uint8),
    "period of three": np.tile(np.array([1, 2, 3], dtype=np.uint8), 100_000),
    "one byte": np.array([200], dtype=np.uint8),
    "two equal bytes": np.array([9, 9], dtype=np.uint8),
}


@pytest.mark.parametrize("name", CONTENT)
def test_what_was_encoded_comes_back(name):
    pixels = CONTENT[name]
    decoded = decode_lzw(bytes(imagecodecs.lzw_encode(pixels.tobytes())), size=pixels.size)
    np.testing.assert_array_equal(decoded, pixels)


def test_too_few_bytes_are_left_to_the_other_decoder():
    pixels = CONTENT["counts"]
    assert decode_lzw(bytes(imagecodecs.lzw_encode(pixels.tobytes())), size=pixels.size + 1) is None


@pytest.mark.parametrize("name", ["counts", "constant", "noise"])
def test_damaged_data_are_refused_or_decoded_as_by_another_decoder(name):
    pixels = CONTENT[name][:20_000]
    encoded = bytearray(imagecodecs.lzw_encode(pixels.tobytes()))
    rng = np.random.default_rng(6)
    refused = 0
    for _ in range(200):
        damaged = bytearray(encoded[: rng.integers(3, len(encoded) + 1)])
        for place in rng.integers(1, len(damaged), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        found = decode_lzw(bytes(damaged), size=pixels.size)
        if found is None:
            refused += 1
            continue
        room = np.zeros(pixels.size, dtype=np.uint8)
        other = np.frombuffer(imagecodecs.lzw_decode(bytes(damaged), out=memoryview(room.data)), dtype=np.uint8)
        np.testing.assert_array_equal(found, other)
    assert refused > 0


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x00\x01\x02\x03", b"\xff" * 50, b"\x80\x40"])
def test_what_is_not_lzw_is_left_alone(data):
    assert decode_lzw(data, size=100) is None
