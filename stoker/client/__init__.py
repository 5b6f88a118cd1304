"""The HTTP client: synchronous and asyncio, over one description of every endpoint."""

from stoker.client._async import AsyncClient
from stoker.client._columns import columns, number
from stoker.client._config import Config, load_config
from stoker.client._progress import Progress
from stoker.client._sync import Client

__all__ = ["AsyncClient", "Client", "Config", "Progress", "columns", "load_config", "number"]
