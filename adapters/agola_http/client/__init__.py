"""The run service's client over HTTP. `Client` has the methods of `RunService` and raises its errors."""

from agola_http.client.runservice import Client

__all__ = ["Client"]
