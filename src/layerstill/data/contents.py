"""What is in a file: its bytes, unpacked where they are gzip, and its text."""

import codecs
import gzip
import zlib
from pathlib import Path

from layerstill.errors import UserError

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""First bytes of texts, and the encoding that they announce. That of UTF-32 begins with that of UTF-16."""
OTHERS = {
    b"BZh": "packed with bzip2; unpack it (bunzip2)",
    b"\xfd7zXZ\x00": "packed with xz; unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it (unzstd)",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save it as .xlsx, or as 'CSV UTF-8'",
    b"ARROW1": "an Arrow file; write it as Parquet, with Dataset.to_parquet or DataFrame.to_parquet",
}
"""First bytes of files that are not read, and the way out."""
GZIP = b"\x1f\x8b"
UTF8 = "convert the file to UTF-8 (Excel saves it as 'CSV UTF-8')"


def suffix_of(path: Path) -> str:
    """What kind of file a name stands for, in lower case and whether it is packed with gzip or not: `.csv`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def stem_of(path: Path) -> str:
    """The name without what `suffix_of` says, in lower case: `train` of `Train.csv.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).stem


def refuse_missing(path: Path) -> None:
    """UserError for what is no ordinary file."""
    if not path.is_file():
        raise UserError(f"{path}: {'not an ordinary file' if path.exists() else 'no such file'}")


def first_bytes(path: Path, count: int = 8) -> bytes:
    """The first bytes of a file as they lie on the disk."""
    with path.open("rb") as file:
        return file.read(count)


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked if it is gzip; UserError for a damaged one."""
    raw = path.read_bytes()
    if not raw.startswith(GZIP):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: a damaged gzip file: {error}") from None


def decoded(path: Path, raw: bytes) -> str:
    """Bytes as text with its line ends as they are; UserError with line and byte for what is no text."""
    for first, way in OTHERS.items():
        if raw.startswith(first):
            raise UserError(f"{path}: {way}")
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            raise UserError(
                f"{path}: not {encoding.upper()} at byte {error.start}, although it begins as such"
            ) from None
        # The mark at the beginning is not counted in the error.
        at = error.start + (len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0)
        line = raw.count(b"\n", 0, at) + 1
        raise UserError(f"{path} line {line}: not UTF-8 at byte {at}; {UTF8}") from None
    if (zero := text.find("\0")) >= 0:
        line = text.count("\n", 0, zero) + 1
        raise UserError(
            f"{path} line {line}: a NUL byte at byte {len(text[:zero].encode())}, which no text contains; the "
            f"file is binary, damaged or UTF-16: convert it to UTF-8"
        )
    return text


def read_text(path: Path) -> str:
    """The file as text with `\\n` for every line end; UserError with line and byte for what is no text."""
    return decoded(path, read_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")


def with_line_feeds(text: str) -> str:
    """Text with `\\n` for its line ends. Where there are such, a carriage return alone is part of a text and stays."""
    text = text.replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")
