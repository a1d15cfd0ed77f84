"""The framing is TensorBoard's own, bit by bit, and damage costs only what is damaged."""

import io
import struct

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tensorboard.summary.writer.record_writer import RecordWriter

from hpcft.curves.crc import crc32c, mask, masked_crc32c, masked_crc32c_many
from hpcft.curves.frames import (
    Tail,
    encode_frame,
    encode_frames,
    find_frame,
    read_frames,
    rescue_frames,
)

payload_lists = st.lists(st.binary(max_size=40), max_size=40)


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, B.4, and the check value of the catalogue of CRCs
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_gives_the_published_values(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


@given(st.binary(max_size=900), st.data())
def test_checksums_of_many_are_those_of_each(data: bytes, draw: st.DataObject) -> None:
    places = st.integers(0, len(data))
    spans = draw.draw(st.lists(st.tuples(places, places), max_size=30))
    begins, ends = (np.array([pick(span) for span in spans], dtype=np.int64) for pick in (min, max))
    found = masked_crc32c_many(np.frombuffer(data, dtype=np.uint8), begins, ends - begins)
    assert found.tolist() == [mask(crc32c(data[min(span) : max(span)])) for span in spans]


@pytest.mark.parametrize("size", [2048, 2049, 96 << 5, (96 << 5) + 1, 100_003])
def test_the_checksum_of_a_long_stretch_is_that_of_its_bytes_one_by_one(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert masked_crc32c(data) == mask(crc32c(data))


@given(payload_lists)
def test_frames_are_those_of_tensorboards_own_writer(payloads: list[bytes]) -> None:
    file = io.BytesIO()
    writer = RecordWriter(file)
    for payload in payloads:
        writer.write(payload)
    writer.flush()
    expected = file.getvalue()
    assert b"".join(map(encode_frame, payloads)) == expected
    assert encode_frames(payloads) == expected


@given(payload_lists, st.data())
def test_a_file_cut_anywhere_gives_its_whole_frames_and_waits_for_the_rest(
    payloads: list[bytes], data: st.DataObject
) -> None:
    whole = encode_frames(payloads)
    cut = data.draw(st.integers(0, len(whole)))
    first = read_frames(whole[:cut])
    assert first.tail is (Tail.WHOLE if first.end == cut else Tail.SHORT)
    assert first.bad_frames == 0
    rest = read_frames(whole, first.end)
    assert first.payloads + rest.payloads == payloads
    assert (rest.end, rest.tail) == (len(whole), Tail.WHOLE)


def test_many_frames_of_one_length_are_checked_like_few() -> None:
    payloads = [index.to_bytes(52, "big") for index in range(100)]
    data = bytearray(encode_frames(payloads))
    data[40 * 68 + 12 + 7] ^= 1
    frames = read_frames(bytes(data))
    assert frames.payloads == payloads[:40] + payloads[41:]
    assert frames.bad_frames == 1


def test_a_flipped_bit_in_the_data_costs_one_frame() -> None:
    data = bytearray(encode_frames([b"one", b"two", b"three"]))
    data[19 + 12] ^= 4
    frames = read_frames(bytes(data))
    assert (frames.payloads, frames.bad_frames, frames.tail) == ([b"one", b"three"], 1, Tail.WHOLE)


def test_a_flipped_bit_in_a_length_is_corrupt_not_short() -> None:
    data = bytearray(encode_frames([b"one", b"two", b"three"]))
    data[19] ^= 4
    frames = read_frames(bytes(data))
    assert (frames.payloads, frames.end, frames.tail) == ([b"one"], 19, Tail.CORRUPT)
    rescued = rescue_frames(bytes(data))
    assert (rescued.payloads, rescued.lost_bytes, rescued.tail) == ([b"one", b"three"], 19, Tail.WHOLE)


def test_zeros_are_never_a_frame() -> None:
    data = encode_frame(b"one") + bytes(4096)
    rescued = rescue_frames(data)
    assert (rescued.payloads, rescued.lost_bytes, rescued.tail) == ([b"one"], 4096, Tail.CORRUPT)


def test_a_length_beyond_a_gibibyte_is_corrupt_even_with_a_right_checksum() -> None:
    length = struct.pack("<Q", 1 << 40)
    assert read_frames(length + struct.pack("<I", mask(crc32c(length)))).tail is Tail.CORRUPT


@example([], [b""], bytes(8), 12)
@given(payload_lists, payload_lists.filter(bool), st.binary(max_size=30), st.integers(1, 15))
def test_what_was_appended_behind_a_tear_is_rescued(
    before: list[bytes], after: list[bytes], torn: bytes, missing: int
) -> None:
    good = encode_frames(before)
    half = encode_frame(torn)[:-missing]
    # By chance what follows may complete it: eight zeros have the checksum of an empty frame's length.
    assume(not read_frames(half + encode_frames(after)).payloads)
    data = good + half + encode_frames(after)
    rescued = rescue_frames(data)
    assert rescued.payloads == before + after
    assert find_frame(data, len(data)) is None


def test_a_frame_is_found_wherever_it_begins() -> None:
    noise = bytes(range(1, 256)) * 2100
    for at in (0, 1, (1 << 18) - 1, 1 << 18, len(noise)):
        data = noise[:at] + encode_frame(b"here") + noise[at:]
        assert find_frame(data, 0) == at
