"""Whether a video file holds exactly the RGB bytes that were encoded: evidence from its data, not from its name.

H.264 and VP9 are lossless where every block of every frame has the quantiser 0 (in H.264 also the sequence's flag that
this means "no transform"), which the decoder reports. Some codecs are lossless by construction and some can never be.
For all others there is no evidence that could be read, and the answer is "unknown".
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type

RGB_FORMATS = {"gbrp", "rgb24", "bgr24", "bgr0", "rgb0", "0rgb", "0bgr"}  # decoded without a change of colour space
ALWAYS = {"ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "rawvideo", "png", "apng", "qtrle", "lagarith", "zlib"}
NEVER = {"mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "vp8", "theora", "prores", "h263", "flv1", "wmv1", "wmv2"}
NO_TRANSFORM = (244, 44)  # the H.264 profiles that may leave blocks untransformed


def lossless(path: str | Path) -> bool | None:
    """True: nothing was lost since the RGB frames were encoded; False: something was; None: the file does not tell.

    Whether an earlier, lossy life precedes the encoding cannot be seen. Decodes the whole file.
    """
    with av.open(f"file:{path}") as container:
        stream: Any = container.streams.best("video")
        if stream is None:
            return None
        codec, pixels = stream.codec_context.name, stream.codec_context.pix_fmt
        if pixels not in RGB_FORMATS:  # RGB was converted to other colours, which rounds
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
    """What holds of all files together, and a note on each kind of file that is not known to be lossless."""
    known = {str(path): lossless(path) for path in paths}
    kinds = {
        False: "went through a lossy format; these are not the numbers of the frames that were generated.",
        None: "does not tell whether it is lossless.",
    }
    notes = [
        f"{' and '.join(names)} {text}"
        for kind, text in kinds.items()
        if (names := [name for name, found in known.items() if found is kind])
    ]
    return next((kind for kind in kinds if kind in known.values()), True), notes


def _all_zero(container: Any, stream: Any) -> bool | None:
    """Whether all quantisers of all frames are 0; None where the decoder does not report one."""
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
    except ValueError:  # side data of a kind that PyAV does not know, or a stream that does not decode
        return None
    return True if seen else None


def _coarsest(data: bytes) -> int:
    """The largest quantiser in an AVVideoEncParams, or of its planes' offsets: 0 if none is above 0."""
    blocks, start, size = struct.unpack_from("<I4xQQ", data)
    base, *offsets = struct.unpack_from("<9i", data, 28)
    table = np.frombuffer(data, np.uint8, blocks * size, start).reshape(blocks, size)
    own = table[:, 16:20].copy().view(np.int32) if blocks else np.zeros(1, np.int32)
    return int(max(abs(base + own).max(), *map(abs, offsets)))


def _known_flag(extradata: bytes) -> bool | None:
    """False where the headers are there and say that blocks are transformed, None where they are not there."""
    return False if _sequence(extradata) else None


def _untransformed(extradata: bytes) -> bool:
    """Whether H.264's sequence header says that quantiser 0 stands for "no transform"."""
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

    unsigned()  # the sequence's number
    if unsigned() == 3:  # 4:4:4
        at += 1  # planes apart
    unsigned(), unsigned()  # bits of luma and chroma
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
