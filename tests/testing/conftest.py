"""The fixture, also where the package was installed before it had the plugin."""

from __future__ import annotations

from outlast_pytest import outlast_engine

__all__ = ["outlast_engine"]
