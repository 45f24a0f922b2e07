"""Checks whether a video file contains exactly the RGB bytes that were encoded, from its data and not from its name.

H.264 and VP9 are lossless if the decoder reports the quantiser 0 for every block of every frame. H.264 also needs the
sequence flag that this means "no transform". Some codecs are always lossless and some are never lossless. For all other
codecs the answer is "unknown".
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type

RGB_FORMATS = {"gbrp", "rgb24", "bgr24", "bgr0", "rgb0", "0rgb", "0bgr"}  # decoded without a colour conversion
ALWAYS = {"ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "rawvideo", "png", "apng", "qtrle", "lagarith", "zlib"}
NEVER = {"mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "vp8", "theora", "prores", "h263", "flv1", "wmv1", "wmv2"}
NO_TRANSFORM = (244, 44)  # the H.264 profiles that may leave blocks untransformed


def lossless(path: str | Path) -> bool | None:
    """True: the encoding was lossless. False: it was lossy. None: unknown.

    An earlier lossy encoding of the same frames cannot be detected. Decodes the whole file.
    """
    with av.open(f"file:{path}") as container:
        stream: Any = container.streams.best("video")
        if stream is None:
            return None
        codec, pixels = stream.codec_context.name, stream.codec_context.pix_fmt
        if pixels not in RGB_FORMATS:  # RGB was converted to another colour space, with rounding
            return False
        codec = "vp9" if codec == "libvpx-vp9" else codec
        if codec in ALWAYS or codec in NEVER:
            return codec in ALWAYS
        if codec == "h264" and not _untransformed(bytes(stream.codec_context.extradata or b"")):
            return _known_flag(bytes(stream.codec_context.extradata or b""))
        if codec not in ("h264", "vp9"):
            return None
        return _all_zero(container, stream)


def told(paths: Iterable[str | Path]) -> tuple[bool | None, list[str]]:
    """The common answer for all files, and a note on each kind of file that is lossy or unknown."""
    known = {str(path): lossless(path) for path in paths}
    kinds = {
        False: "has a lossy format; these numbers are not those of the generated frames.",
        None: "may be lossy; its format does not tell.",
    }
    notes = [
        f"{' and '.join(names)} {text}"
        for kind, text in kinds.items()
        if (names := [name for name, found in known.items() if found is kind])
    ]
    return next((kind for kind in kinds if kind in known.values()), True), notes


def _all_zero(container: Any, stream: Any) -> bool | None:
    """Whether all quantisers of all frames are 0; None if the decoder does not report them."""
    stream.codec_context.options = {"export_side_data": "venc_params"}
    seen = 0
    try:
        for frame in container.decode(stream):
            found = frame.side_data.get(Type.VIDEO_ENC_PARAMS)
            if found is None:
                return None
            if _coarsest(bytes(found)):
                return False
            seen += 1
    except ValueError:  # side data unknown to PyAV, or a stream that cannot be decoded
        return None
    return True if seen else None


def _coarsest(data: bytes) -> int:
    """The largest quantiser in an AVVideoEncParams, plane offsets included; 0 if none is above 0."""
    blocks, start, size = struct.unpack_from("<I4xQQ", data)
    base, *offsets = struct.unpack_from("<9i", data, 28)
    table = np.frombuffer(data, np.uint8, blocks * size, start).reshape(blocks, size)
    own = table[:, 16:20].copy().view(np.int32) if blocks else np.zeros(1, np.int32)
    return int(max(abs(base + own).max(), *map(abs, offsets)))


def _known_flag(extradata: bytes) -> bool | None:
    """False if the headers say that blocks are transformed; None if there are no headers."""
    return False if _sequence(extradata) else None


def _untransformed(extradata: bytes) -> bool:
    """Whether H.264's sequence header says that quantiser 0 means "no transform"."""
    sequence = _sequence(extradata)
    if not sequence or sequence[0] not in NO_TRANSFORM:
        return False
    bits = "".join(f"{byte:08b}" for byte in sequence[3:].replace(b"\0\0\3", b"\0\0"))
    at = 0

    def unsigned() -> int:  # Exp-Golomb
        nonlocal at
        zeros = bits.index("1", at) - at
        at += 2 * zeros + 1
        return int(bits[at - zeros - 1 : at], 2) - 1

    unsigned()  # id of the sequence parameter set
    if unsigned() == 3:  # 4:4:4
        at += 1  # flag: separate colour planes
    unsigned(), unsigned()  # bit depths of luma and chroma
    return bits[at] == "1"


def _sequence(extradata: bytes) -> bytes:
    """The first sequence parameter set after its header byte, from an avcC box or a byte stream; empty if none."""
    if extradata[:1] == b"\1" and len(extradata) > 8 and extradata[5] & 31:
        length = int.from_bytes(extradata[6:8], "big")
        return extradata[9 : 8 + length]
    for unit in extradata.split(b"\0\0\1")[1:]:
        if unit[:1] and unit[0] & 31 == 7:
            return unit[1:]
    return b""
