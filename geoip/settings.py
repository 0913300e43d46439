"""The geoip command's variables: their defaults and their meaning, in one place."""

from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

MAXMIND_URL: Final = "https://download.maxmind.com/geoip/databases/{edition}/download?suffix=tar.gz"


class GeoipSettings(BaseModel):
    """What `geoip update` reads from the environment."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    geoip_db: Path | None = Field(
        None, description="a GeoIP2, GeoLite2 or DB-IP file; unset: the shipped country table"
    )
    maxmind_account_id: str | None = Field(
        None, pattern=r"^[0-9]{1,18}$", description="the number of a MaxMind account, for `geoip update`"
    )
    maxmind_license_key: SecretStr | None = Field(
        None, description="a licence key of that account, for `geoip update`"
    )
    maxmind_url: str = Field(
        MAXMIND_URL,
        description="where `geoip update` finds the .tar.gz of an {edition}, and with .sha256 behind it its checksum",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuse half of what belongs together."""
        if (self.maxmind_account_id is None) != (self.maxmind_license_key is None):
            raise ValueError(
                "MAXMIND_ACCOUNT_ID and MAXMIND_LICENSE_KEY belong together: set both or neither."
            )
        return self
