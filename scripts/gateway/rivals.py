"""What is measured side by side: a provider by itself, and behind LiteLLM's proxy and Pointsman's gateway."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from policy.domain import RouterSpec
from scripts.gateway.processes import Started, create_router, pointsman, serving_environment, started

MODELS = ("small", "large")
MODEL = "pointsman"
_KEY = "sk-of-nobody"
BARE, PROXY, GATEWAY = "provider", "LiteLLM's proxy", "Pointsman"


@dataclass(frozen=True)
class Rival:
    """Whom requests are sent to, and the processes that work for it."""

    name: str
    url: str
    processes: tuple[Started, ...]

    def processor_seconds(self) -> float:
        """What all of them have used so far."""
        return sum(each.processor_seconds() for each in self.processes)


@asynccontextmanager
async def rivals(proxy: Path | None) -> AsyncIterator[list[Rival]]:
    """All of them, serving the same models of one provider. `proxy` is LiteLLM's command; None leaves it out."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Where the script was called scripts/ may be another one: -P, as in the script.
        provider = await stack.enter_async_context(started(sys.executable, "-P", "-m", "scripts.gateway.standin"))
        url = _url(provider)
        found = [Rival(BARE, url, ())]
        if proxy is not None:
            ready = await stack.enter_async_context(_proxy(proxy, folder, url))
            found.append(Rival(PROXY, _url(ready), (ready,)))
        server = await stack.enter_async_context(
            started(
                *pointsman("serve", "--port", "0", "--database-url", f"sqlite:///{folder / 'p.db'}"),
                environment=serving_environment(),
            )
        )
        target = f"127.0.0.1:{server.port}"
        await create_router(target, MODEL, RouterSpec(), MODELS)
        config = _write(folder / "gateway.yaml", _gateway_file(url, folder))
        gateway = await stack.enter_async_context(
            started(*pointsman("gateway", "--port", "0", "--config", str(config), "--target", target))
        )
        found.append(Rival(GATEWAY, _url(gateway), (gateway, server)))
        yield found


def _gateway_file(url: str, folder: Path) -> Mapping[str, Any]:
    key = folder / "key"
    key.write_text(_KEY)
    target = {"api_base": f"{url}/v1", "api_key_file": str(key)}
    models = {name: {"litellm_model": f"openai/{name}", **target} for name in MODELS}
    # Every answer is to be a routed one: on a machine with other work a decision may take its time.
    return {"default_router": MODEL, "route_seconds": 10.0, "models": models}


def _proxy_file(url: str) -> Mapping[str, Any]:
    target = {"api_base": f"{url}/v1", "api_key": _KEY}
    models = [{"model_name": MODEL, "litellm_params": {"model": f"openai/{name}", **target}} for name in MODELS]
    return {"model_list": models, "router_settings": {"routing_strategy": "simple-shuffle"}}


@asynccontextmanager
async def _proxy(command: Path, folder: Path, url: str) -> AsyncIterator[Started]:
    """One worker, set up for production, but without a key for clients, a database or callbacks."""
    config = _write(folder / "proxy.yaml", _proxy_file(url))
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    given = ("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    environment = {
        "HOME": str(folder),
        "PATH": "/usr/bin:/bin",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_OFFLINE_MODE": "true",
    }
    async with started(str(command), *given, environment=environment, port=port) as ready:
        yield ready


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def _url(process: Started) -> str:
    return f"http://127.0.0.1:{process.port}"
