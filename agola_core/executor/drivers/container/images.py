"""Names of container images, and the logins for their registries."""

from __future__ import annotations

from collections.abc import Mapping

from agola_core.errors import ConfigError
from agola_core.runservice.model.types import RegistryAuth

_HUB_NAMES = ("docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io")


def split_image(image: str) -> tuple[str, str]:
    """Return the repository of an image and its tag or digest.

    Example:
        >>> split_image("registry.example.org:5000/group/name")
        ('registry.example.org:5000/group/name', 'latest')
    """
    repository, at, digest = image.partition("@")
    if at:
        return repository, digest
    head, colon, tag = image.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (image, "latest")


def registry_login(image: str, auths: Mapping[str, RegistryAuth]) -> dict[str, str]:
    """Return the login for an image; none if its registry is not among the given ones.

    Args:
        image: Such as `registry.example.org:5000/group/name:tag`.
        auths: By registry; the Docker Hub's is `index.docker.io`, `docker.io` or its full URL.
    """
    first, slash, _ = image.partition("/")
    is_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    names = (first, f"https://{first}", f"http://{first}") if is_registry else _HUB_NAMES
    for name in names:
        auth = auths.get(name)
        if auth is None:
            continue
        if auth.type == "encodedauth":
            return {"auth": auth.auth, **_decoded(auth.auth)}
        return {"username": auth.username, "password": auth.password}
    return {}


def _decoded(text: str) -> dict[str, str]:
    import base64  # noqa: PLC0415 - rare

    try:
        username, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError as error:
        raise ConfigError("an encodedauth is base64 of USER:PASSWORD, and this one is not") from error
    if not colon:
        raise ConfigError("an encodedauth is base64 of USER:PASSWORD, and this one is not")
    return {"username": username, "password": password}
