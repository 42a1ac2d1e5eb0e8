"""Sizes in words."""


def size_in_words(gigabytes: float) -> str:
    """A size on the disk in the unit that suits it: kB, MB or GB, of 10^3, 10^6 and 10^9 bytes."""
    if gigabytes <= 0:
        return "nothing"
    for unit, factor in (("GB", 1.0), ("MB", 1e3), ("kB", 1e6)):
        if gigabytes * factor >= 1:
            value = gigabytes * factor
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return "less than 1 kB"
