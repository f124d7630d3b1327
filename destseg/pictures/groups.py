"""Pictures in groups: views of one part, crops of one strip; equal pictures belong together, too."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from destseg.pictures.folders import Source
from destseg.pictures.likeness import alike
from destseg.pictures.store import PictureStore
from destseg.settings import check_groups

logger = logging.getLogger("destseg")

Groups: TypeAlias = str | Callable[[Path], Hashable] | None
"""How pictures are put into groups, see `groups_of`."""

FOLDER = "folder"
NUMBERED = r"(.*?)\d+\D*$"  # everything before the last number of a path


def groups_of(sources: Sequence[Source], groups: Groups) -> list[Hashable]:
    """Return the group of each picture; nothing is decoded.

    Args:
        sources: the pictures, as `destseg.pictures.folders.as_pictures` lists them.
        groups: one of
            None: each picture is a group of its own;
            "folder": the folder that the picture lies in;
            a regular expression with exactly one group, which is searched in the picture's path, with forward
            slashes; what the group matches names the picture's group;
            a function of the path, a pathlib.Path, that returns anything hashable. For a picture without a
            file it gets the name in place of a path: Path("picture 0"), Path("picture 1") ...

    Raises:
        ValueError: a pattern does not compile, has not exactly one group or does not match a picture's path;
            or it should, and the picture has no path.
        TypeError: `groups` is of another type, or the function returns something that is not hashable.

    Example:
        >>> from destseg.pictures.folders import Source
        >>> crops = [Source(name, Path(name)) for name in ("a/7_0.png", "a/7_1.png", "b/8_0.png")]
        >>> groups_of(crops, r"(\\d+)_\\d"), groups_of(crops, lambda path: path.parent.name)
        (['7', '7', '8'], ['a', 'a', 'b'])
    """
    check_groups(groups)
    if groups is None:
        return list(range(len(sources)))
    if callable(groups):
        return [_hashable(groups(Path(source.name)), source) for source in sources]
    paths = [_path_of(source, groups) for source in sources]
    if groups == FOLDER:
        return [path.parent for path in paths]
    return [_matched(groups, path) for path in paths]


def join_groups(*labelings: Sequence[Hashable]) -> list[int]:
    """Return one number per picture; pictures that share a label in any of the labelings share the number.

    Numbers start at 0 and count in the order of the pictures.

    Example:
        >>> join_groups(["a", "b", "b", "c"], [1, 2, 3, 1])
        [0, 1, 1, 0]
    """
    parents = list(range(len(labelings[0])))

    def root(picture: int) -> int:
        while parents[picture] != picture:
            picture = parents[picture]
        return picture

    for labels in labelings:
        firsts: dict[Hashable, int] = {}
        for picture, label in enumerate(labels):
            low, high = sorted((root(picture), root(firsts.setdefault(label, picture))))
            parents[high] = low
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(picture), len(numbers)) for picture in range(len(parents))]


def units_of(store: PictureStore, labels: Mapping[Source, Hashable]) -> list[int]:
    """Return the number of each picture's unit: pictures of one group or with equal pixels are one unit.

    Args:
        store: the pictures; it reports equal ones by one warning.
        labels: the group of each source.
    """
    firsts: dict[bytes, Source] = {}
    copies = [
        (first.name, source.name)
        for source, digest in zip(store.sources, store.digests, strict=True)
        if (first := firsts.setdefault(digest, source)) is not source
    ]
    if copies:
        logger.warning(
            "%d of %d pictures equal%s an earlier one, such as %s, which equals %s: equal pictures stay on "
            "one side of the split between training and calibration and count once; delete the copies",
            len(copies),
            store.pictures,
            "s" if len(copies) == 1 else "",
            *reversed(copies[0]),
        )
    return join_groups([labels[source] for source in store.sources], store.digests)


def hint_at_groups(store: PictureStore) -> None:
    """Warn, once for each reason, if pictures seem to come in groups: by their names, or by their looks.

    Looks count only for pictures that the store keeps in memory; see `destseg.pictures.likeness.alike`. Pairs
    that lie within a group of the first hint or are equal are left out of the second.
    """
    groups = named_groups(store.sources)
    labels = groups_of(store.sources, groups)
    if groups is not None:
        pair = _first_pair(labels)
        logger.warning(
            "the names of %d pictures form %d groups, such as %s and %s: if the pictures of a group show the "
            'same part, strip or day, no rate is guaranteed unless they stay together: fit with groups=r"%s" '
            "(--group '%s')",
            len(labels),
            len(set(labels)),
            *(store.sources[picture].name for picture in pair),
            groups,
            groups,
        )
    pairs = alike(store.views, join_groups(labels, store.digests))
    if pairs:
        first, second = (store.sources[picture].name for picture in pairs[0])
        logger.warning(
            "%d pair%s of pictures seem%s to show the same part, such as %s and %s: the rate is guaranteed "
            "only if such pictures stay together: delete one of each pair, or put both into one group by "
            "groups= (--group)",
            len(pairs),
            "" if len(pairs) == 1 else "s",
            "s" if len(pairs) == 1 else "",
            first,
            second,
        )


def named_groups(sources: Sequence[Source]) -> str | None:
    """Return how to group pictures, as `groups_of` takes it, if their names look as if they came in groups.

    A group is what precedes the last number of the path: strip7_1.png and strip7_2.png. The names say so if
    most groups hold several pictures, none holds more than a quarter of all, and there are at least as many
    groups as pictures in a group on average. So a few large groups, such as six exposures with a hundred
    pictures each, do not count: new pictures come from the same few, and a guarantee that counts groups could
    promise next to nothing.
    """
    if not all(isinstance(source.image, Path) for source in sources):
        return None
    paths = [Path(source.name).as_posix() for source in sources]
    stems = [re.search(r"(.*?)\d+[^\d/]*$", path) for path in paths]
    if not all(stems):
        return None
    groups = [stem[1] for stem in stems if stem]
    sizes = Counter(groups).values()
    several = sum(size > 1 for size in sizes)
    if 2 * several <= len(sizes) or 4 * max(sizes) > len(groups) or len(groups) > len(sizes) ** 2:
        return None
    folders = [path.rpartition("/")[0] for path in paths]
    return FOLDER if join_groups(folders) == join_groups(groups) else NUMBERED


def _first_pair(labels: Iterable[Hashable]) -> tuple[int, int]:
    """Return the first two pictures that share a label."""
    firsts: dict[Hashable, int] = {}
    return next(
        (first, picture)
        for picture, label in enumerate(labels)
        if (first := firsts.setdefault(label, picture)) != picture
    )


def _path_of(source: Source, groups: str) -> Path:
    if not isinstance(source.image, Path):
        raise ValueError(
            f"groups={groups!r} needs the paths of the pictures, and {source.name} has none: pass files, or "
            "a function of the names"
        )
    return source.image


def _matched(pattern: str, path: Path) -> str:
    found = re.search(pattern, path.as_posix())
    if found is None or found[1] is None:
        raise ValueError(f"groups: the pattern {pattern!r} does not match {path}")
    return found[1]


def _hashable(label: Hashable, source: Source) -> Hashable:
    try:
        hash(label)
    except TypeError as error:
        kind = type(label).__name__
        raise TypeError(f"groups must return something hashable, got a {kind} for {source.name}") from error
    return label
