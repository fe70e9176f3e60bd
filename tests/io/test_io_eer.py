import imagecodecs
import numpy as np
import pytest
from eer_reference import container, decode, encode, render

from icestream.errors import FileFormatError, TruncatedFile
from icestream.io.eer_write import encode_events, write_eer
from icestream.io.movie import movie_header, open_movie

HEIGHT, WIDTH = 24, 40


def random_frames(n_frames, sub_bits, *, seed=3, height=HEIGHT, width=WIDTH, density=0.03):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        pixels = np.flatnonzero(rng.random(height * width) < density)
        subs = rng.integers(0, 2**sub_bits, (pixels.size, 2))
        frames.append([(int(p // width), int(p % width), int(a), int(b)) for p, (a, b) in zip(pixels, subs, strict=True)])
    return frames


def quarter_positions(events):
    return np.array([(4 * y + a, 4 * x + b) for y, x, a, b in events], dtype=int).reshape(-1, 2)


@pytest.mark.parametrize("code", [(65000, 8, 2), (65001, 7, 2), (65002, 7, 1), (65002, 5, 2)])
@pytest.mark.parametrize("upsampling", [1, 2, 4])
def test_reader_agrees_with_the_reference(tmp_path, code, upsampling):
    compression, skip_bits, sub_bits = code
    frames = random_frames(7, sub_bits)
    path = tmp_path / "movie.eer"
    tags = [(65007, skip_bits), (65008, sub_bits), (65009, sub_bits)] if compression == 65002 else []
    path.write_bytes(container([encode(f, HEIGHT, WIDTH, skip_bits, sub_bits) for f in frames], HEIGHT, WIDTH, compression, tags))
    with open_movie(path, eer_upsampling=upsampling, eer_group=3) as movie:
        assert (movie.format, movie.n_frames, movie.height_px, movie.width_px) == (
            "eer",
            2,
            HEIGHT * upsampling,
            WIDTH * upsampling,
        )
        if upsampling > 2**sub_bits:
            with pytest.raises(FileFormatError, match="too few for upsampling 4"):
                next(movie.frames())
            return
        sums = list(movie.frames())
    for index, image in enumerate(sums):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, render(frames[3 * index : 3 * index + 3], HEIGHT, WIDTH, upsampling, sub_bits))


def test_long_empty_stretches_and_the_corners():
    events = [(0, 0, 3, 0), (0, 127, 0, 0), (3, 255, 1, 2), (63, 255, 2, 3)]
    for skip_bits in (7, 8):
        stream = encode_events(quarter_positions(events), height_px=64, width_px=256, skip_bits=skip_bits)
        assert decode(stream, 64, 256, skip_bits, 2) == events


@pytest.mark.parametrize("compression", [65000, 65001])
def test_written_movies_are_read_by_the_reference_and_by_us(tmp_path, compression):
    frames = random_frames(5, 2)
    path = tmp_path / "written.eer"
    arguments = {"height_px": HEIGHT, "width_px": WIDTH, "compression": compression}
    assert write_eer(path, map(quarter_positions, frames), pixel_size_ang=0.75, exposure_s=2.5, **arguments) == 5
    for events in frames:
        stream = encode_events(
            quarter_positions(events), height_px=HEIGHT, width_px=WIDTH, skip_bits=8 if compression == 65000 else 7
        )
        assert decode(stream, HEIGHT, WIDTH, 8 if compression == 65000 else 7, 2) == events
    header = movie_header(path, eer_upsampling=2)
    assert header.pixel_size_ang == pytest.approx(0.375)
    assert header.said.acquisition.pixel_size_ang == pytest.approx(0.75)
    assert header.said.metadata.exposure_s == 2.5
    with open_movie(path, eer_upsampling=4) as movie:
        for image, events in zip(movie.frames(), frames, strict=True):
            np.testing.assert_array_equal(image, render([events], HEIGHT, WIDTH, 4, 2))


def test_agrees_with_imagecodecs_where_that_accepts_the_stream():
    """Its check at the end of a stream is stricter than ours, so only streams that it takes are compared."""
    compared = 0
    for seed in range(40):
        events = random_frames(1, 2, seed=seed, height=64, width=64)[0]
        stream = encode_events(quarter_positions(events), height_px=64, width_px=64, skip_bits=7)
        for padding in range(4):
            try:
                image = imagecodecs.eer_decode(stream + bytes(padding), (256, 256), 7, 2, 2, superres=2)
            except RuntimeError:
                continue
            np.testing.assert_array_equal(image, render([events], 64, 64, 4, 2))
            compared += 1
            break
    assert compared >= 10


def test_sums_of_many_frames_do_not_overflow(tmp_path):
    path = tmp_path / "many.eer"
    write_eer(path, [np.array([[5, 6]])] * 300, height_px=8, width_px=8)
    with open_movie(path, eer_group=300) as movie:
        (image,) = movie.frames()
    assert image.dtype == np.uint16 == movie.dtype
    assert image[1, 1] == 300 == image.sum()


def test_an_image_of_the_sum_is_left_out(tmp_path):
    frames = random_frames(2, 2)
    streams = [encode(f, HEIGHT, WIDTH, 7, 2) for f in frames]
    data = bytearray(container([bytes(HEIGHT * WIDTH), *streams], HEIGHT, WIDTH, 65001))
    first = data.index(b"\x03\x01\x03\x00\x01\x00\x00\x00" + (65001).to_bytes(4, "little"))
    data[first + 8 : first + 12] = (1).to_bytes(4, "little")
    path = tmp_path / "with_sum.eer"
    path.write_bytes(data)
    with open_movie(path) as movie:
        assert movie.n_frames == 2
        np.testing.assert_array_equal(next(movie.frames(1)), render([frames[1]], HEIGHT, WIDTH, 1, 2))


def test_what_cannot_be_done_is_said(tmp_path):
    path = tmp_path / "movie.eer"
    write_eer(path, [np.zeros((0, 2), int)] * 3, height_px=8, width_px=8)
    with pytest.raises(FileFormatError, match="3 camera frames, fewer than a group of 4"):
        open_movie(path, eer_group=4)
    with pytest.raises(ValueError, match="upsampling 3"):
        open_movie(path, eer_upsampling=3)
    with pytest.raises(ValueError, match="outside the detector"):
        write_eer(path, [np.array([[32, 0]])], height_px=8, width_px=8)
    with pytest.raises(ValueError, match="at least one camera frame"):
        write_eer(path, [], height_px=8, width_px=8)


def test_a_frame_that_claims_too_many_bytes_is_refused(tmp_path):
    path = tmp_path / "claims.eer"
    path.write_bytes(container([bytes(5000)], 8, 8, 65001))
    with open_movie(path) as movie, pytest.raises(FileFormatError, match="more bytes than pixels"):
        next(movie.frames())


def test_a_truncated_movie_is_refused(tmp_path):
    path = tmp_path / "cut.eer"
    write_eer(path, [np.array([[1, 1]])] * 4, height_px=64, width_px=64)
    whole = path.read_bytes()
    for size in range(8, len(whole), 5):
        path.write_bytes(whole[:size])
        with pytest.raises(TruncatedFile):
            open_movie(path)
