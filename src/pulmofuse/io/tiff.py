"""Headers of TIFF: all pages, and whether their strips and tiles are all there."""

from __future__ import annotations

from dataclasses import dataclass

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN
from pulmofuse.io.exif import byte_order, directory, orientation_tag
from pulmofuse.io.headers import Header, cut

#: Tags of TIFF 6.0.
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_CHANNELS, _TILE_WIDTH, _TILE_HEIGHT = 277, 322, 323
_STRIPS, _TILES = (273, 279), (324, 325)
_WHITE_IS_ZERO = 0
#: NewSubfileType: a smaller version of another page, or a mask over it.
_NO_PAGE = 1 | 4
#: A CT of 1,000 slices; a hostile chain of directories has no end.
_MAX_PAGES = 4096
#: A tile is filled up to its full size; this many pixels are allowed beyond the image's own.
_TILE_SLACK_PIXELS = 1 << 20


@dataclass(frozen=True)
class _Page:
    index: int
    tags: dict[int, list[int]]

    def first(self, tag: int, default: int) -> int:
        return (self.tags.get(tag) or [default])[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.first(_WIDTH, 0), self.first(_HEIGHT, 0)


def tiff_header(name: str, data: bytes) -> Header:
    """Read the directories of a TIFF. Pages of equal size count as slices of one volume.

    Raises:
        UnreadableFile: cut, pages of different sizes, or a chain of directories without end.
    """
    try:
        pages = _pages(name, data)
    except EOFError:
        raise cut(name, "TIFF", len(data)) from None
    for page in pages:
        _check(name, data, page)
    kept = [page for page in pages if not page.first(_SUBFILE, 0) & _NO_PAGE] or pages[:1]
    sizes = sorted({page.size for page in kept})
    if len(sizes) > 1:
        seen = ", ".join(f"{width} x {height}" for width, height in sizes[:3])
        raise UnreadableFile(
            name, f"TIFF has {len(kept)} pages of different sizes ({seen})", "give one image"
        )
    page = kept[0]
    extra = {"tiff_compression": page.first(_COMPRESSION, 1)}
    return Header(
        *page.size,
        page.first(_CHANNELS, 1),
        page.first(_BITS, 1),
        pages=tuple(p.index for p in kept),
        orientation=orientation_tag(page.tags),
        white_is_zero=page.first(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO,
        extra=extra,
    )


def _pages(name: str, data: bytes) -> list[_Page]:
    start = int.from_bytes(data[4:8], "little" if byte_order(data) == "<" else "big")
    pages: list[_Page] = []
    while start or not pages:
        tags, start = directory(data, start)
        pages.append(_Page(len(pages), tags))
        if len(pages) > _MAX_PAGES:
            raise UnreadableFile(name, f"TIFF has more than {_MAX_PAGES:,} pages", COPY_AGAIN)
    return pages


def _check(name: str, data: bytes, page: _Page) -> None:
    """Strips and tiles must be all there, and a tile no larger than its image can use."""
    for offsets, counts in (_STRIPS, _TILES):
        pairs = zip(page.tags.get(offsets, []), page.tags.get(counts, []), strict=False)
        needed = max((start + count for start, count in pairs), default=0)
        if needed > len(data):
            raise cut(name, "TIFF", len(data), needed)
    width, height = page.size
    tile = page.first(_TILE_WIDTH, 0) * page.first(_TILE_HEIGHT, 0)
    if tile > 4 * width * height + _TILE_SLACK_PIXELS:
        raise UnreadableFile(name, f"TIFF declares tiles of {tile:,} pixels", COPY_AGAIN)
