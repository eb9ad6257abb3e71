"""The values that tables of a configuration are made of, each checked by itself; no table and no file."""

import json
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from .hooks.api import Deny


class Table(BaseModel):
    """What all tables have in common: they are not changed, and know their keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def shown(value: object) -> str:
    """Write a value as TOML has it, or nearly so, and never at length."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _network(text: object) -> IPv4Network | IPv6Network:
    """Read an address, or a network of addresses."""
    try:
        if isinstance(text, str):
            return ip_network(text)
    except ValueError as problem:
        hint = "clear the bits behind the prefix" if "host bits" in str(problem) else "write it"
        raise ValueError(f'{shown(text)} is no network; {hint} like "192.0.2.0/24"') from None
    raise ValueError(f'{shown(text)} is no network; write it like "192.0.2.0/24"')


def _deniable(text: str) -> str:
    """Refuse what cannot be the reply of a denial."""
    return Deny(text).reply


Count = Annotated[int, Strict()]
Switch = Annotated[bool, Strict()]
Seconds = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
DenialReply = Annotated[str, AfterValidator(_deniable)]
