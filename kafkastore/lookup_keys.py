"""The keys by which an install may find its click. Pure."""

from hashlib import md5, sha1


def lookup_keys(adid: str | None, address: str | None, platform: str | None) -> list[str]:
    """Give the keys by which an install may find its click, the surest first.

    MD5s of the lower-cased advertising id, of its SHA-1 and of its MD5, and of `ip.platform`.
    """
    found = []
    if adid:
        plain = adid.lower().encode()
        found += [plain, sha1(plain, usedforsecurity=False).hexdigest().encode()]
        found += [md5(plain, usedforsecurity=False).hexdigest().encode()]
    if address:
        found.append(f"{address}.{platform or ''}".lower().encode())
    return [md5(one, usedforsecurity=False).hexdigest() for one in found]
