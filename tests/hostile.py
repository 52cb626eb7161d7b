"""Recordings made to hurt whoever decodes them: a few bytes that claim gigabytes, or work without end."""

import struct

#: FLAC's own checksums: polynomial and bits (RFC 9639, 9.1.8 and 9.3).
_CRC8, _CRC16 = (0x07, 8), (0x8005, 16)


def flac_of_long_frames(sample_rate: int = 4, frames: int = 4) -> bytes:
    """FLAC of frames of 65 535 equal samples: at 4 Hz each lasts four and a half hours. 94 bytes with four frames."""
    block = 65_535
    rate_and_format = sample_rate << 44 | 0 << 41 | 15 << 36 | block * frames
    info = struct.pack(">HH6s", block, block, bytes(6)) + rate_and_format.to_bytes(8, "big") + bytes(16)
    recording = b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info
    for number in range(frames):
        # Fixed block size, 16 bits of it follow, rate as in the header; one channel of 16 bits.
        header = bytes([0xFF, 0xF8, 0x70, 0x08, number]) + struct.pack(">H", block - 1)
        header += bytes([_crc(header, *_CRC8)])
        # One subframe, constant.
        frame = header + b"\x00" + struct.pack(">h", 1000)
        recording += frame + struct.pack(">H", _crc(frame, *_CRC16))
    return recording


def wav_header(sample_rate: int, channels: int = 1, samples: int = 8000) -> bytes:
    """WAV of silence that says what it likes of rate and channels."""
    sound = bytes(2 * samples)
    frame = 2 * channels
    rate = sample_rate * frame
    fmt = struct.pack("<HHIIHH", 1, channels, sample_rate, min(rate, 2**32 - 1), min(frame, 65_535), 16)
    chunks = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(sound)) + sound
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def mp4_of_many_tracks(tracks: int = 900, samples: int = 2_000_000) -> bytes:
    """MP4 whose tracks claim so many samples each, all of one byte: FFmpeg makes an index of every one. 316 KB."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    moov = _full(b"mvhd", struct.pack(">IIIIIH10x", 0, 0, 1000, 1000, 0x10000, 0x100) + matrix + bytes(28))
    for number in range(1, tracks + 1):
        head = struct.pack(">IIIIIQHHHH", 0, 0, number, 0, 1000, 0, 0, 0, 0x100, 0) + matrix + bytes(8)
        entry = _box(b"sowt", struct.pack(">6xH8xHHHHI", 1, 1, 16, 0, 0, 8000 << 16))
        table = _box(
            b"stbl",
            _full(b"stsd", struct.pack(">I", 1) + entry),
            _full(b"stts", struct.pack(">III", 1, samples, 4)),
            _full(b"stsc", struct.pack(">IIII", 1, 1, samples, 1)),
            _full(b"stsz", struct.pack(">II", 1, samples)),
            _full(b"stco", struct.pack(">II", 1, 0)),
        )
        media = _box(
            b"mdia",
            _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 8000, samples, 0x55C4, 0)),
            _full(b"hdlr", struct.pack(">I4s12xx", 0, b"soun")),
            _box(b"minf", _full(b"smhd", bytes(4)), table),
        )
        moov += _box(b"trak", _full(b"tkhd", head), media)
    return _box(b"ftyp", b"isom\0\0\2\0isom") + _box(b"moov", moov) + _box(b"mdat", bytes(1000))


def with_cover(mp3: bytes, cover_bytes: int) -> bytes:
    """An MP3 after an ID3 tag that holds a picture of this size."""
    picture = b"\0image/jpeg\0\x03\0" + b"\xff\xd8\xff" + bytes(cover_bytes)
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    return b"ID3\x03\0\0" + bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0)) + frame + mp3


def _box(name: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + name + content


def _full(name: bytes, content: bytes) -> bytes:
    return _box(name, bytes(4), content)


def _crc(content: bytes, polynomial: int, bits: int) -> int:
    value = 0
    for byte in content:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> (bits - 1) else 0)) & ((1 << bits) - 1)
    return value
