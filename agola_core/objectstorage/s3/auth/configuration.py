"""Reads AWS environment variables and the files `~/.aws/config` and `~/.aws/credentials`."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

from agola_core.errors import BadRequestError

ROLES = ("sso_session", "sso_start_url", "role_arn", "source_profile", "login_session")
"""Settings of profiles whose credentials take more than this package knows: botocore has them."""


class Configuration:
    """Settings from the environment and one profile.

    Args:
        environment: Such as `os.environ`.
        profile: Its name; "" for what the environment names, or `default`.

    Raises:
        BadRequestError: There is no such profile, or a file cannot be read.
    """

    def __init__(self, environment: Mapping[str, str], profile: str = "") -> None:
        self.environment = environment
        self.is_chosen = bool(profile)
        self.profile = profile or environment.get("AWS_PROFILE", "") or "default"
        config = _file(environment, "AWS_CONFIG_FILE", "~/.aws/config")
        credentials = _file(environment, "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
        section = self.profile if self.profile == "default" else f"profile {self.profile}"
        found = [_section(config, section), _section(credentials, self.profile)]
        if self.profile != "default" and found == [None, None]:
            raise BadRequestError(
                f"the AWS configuration has no profile {self.profile!r} (it is sought in {config} and {credentials})"
            )
        self._settings = {name: value for settings in found for name, value in (settings or {}).items()}

    def get(self, name: str, *variables: str) -> str:
        """Return a setting: the first of some variables that is set, or else what the profile has; or ""."""
        for variable in variables:
            if self.environment.get(variable):
                return self.environment[variable]
        return self._settings.get(name, "")


def _file(environment: Mapping[str, str], variable: str, default: str) -> Path:
    return Path(environment.get(variable) or default).expanduser()


def _section(path: Path, name: str) -> dict[str, str] | None:
    parser = configparser.RawConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text())
    except (FileNotFoundError, NotADirectoryError, RuntimeError):  # RuntimeError: there is no home
        return None
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        reason = type(error).__name__ if isinstance(error, configparser.Error) else error  # its text quotes lines
        raise BadRequestError(f"the AWS configuration file {path} cannot be read: {reason}") from None
    return dict(parser[name]) if parser.has_section(name) else None
