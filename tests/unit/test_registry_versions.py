"""The order of versions: that of SemVer, in bytes."""

import random

from fastrunner.registry.versions import rank_of

ASCENDING = (
    "0.0.0",
    "0.0.1-0",
    "0.0.1",
    "0.2.0",
    "0.10.0",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0--",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.1.0",
    "1.0.0-alpha.beta",
    "1.0.0-alpha1",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.1.0",
    "2.0.0",
    "10.0.0",
    f"{10**80}.0.0",
)


def test_versions_sort_like_semver() -> None:
    shuffled = list(ASCENDING)
    random.Random(7).shuffle(shuffled)
    assert tuple(sorted(shuffled, key=rank_of)) == ASCENDING


def test_build_metadata_is_no_part_of_the_order() -> None:
    assert rank_of("1.0.0+a") == rank_of("1.0.0+b.7") == rank_of("1.0.0")
    assert rank_of("1.0.0-rc.1+a-b") == rank_of("1.0.0-rc.1")
