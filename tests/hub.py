"""A Hugging Face Hub on loopback with models that have the same shape and weigh what they are told."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

GIB: Final = 2**30
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}


class HubServer:
    """Serves models by name with the bytes of their weights; use as `async with`. Notes the tokens that it is sent."""

    def __init__(self, models: Mapping[str, int]) -> None:
        self._models = models
        self._answers = asyncio.Event()
        self._answers.set()
        self.tokens: list[str] = []
        self.url = ""
        application = web.Application()
        application.router.add_get("/api/models/{name:[^/]+/[^/]+}/revision/main", self._listing)
        application.router.add_get("/{name:[^/]+/[^/]+}/resolve/{revision}/config.json", self._config)
        self._runner = web.AppRunner(application, shutdown_timeout=0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.set()
        await self._runner.cleanup()

    def hang(self) -> None:
        """Answer nobody from now on."""
        self._answers.clear()

    async def _weights(self, request: web.Request) -> int:
        self.tokens.append(request.headers.get("Authorization", ""))
        await self._answers.wait()
        if request.match_info["name"] not in self._models:
            raise web.HTTPNotFound
        return self._models[request.match_info["name"]]

    async def _listing(self, request: web.Request) -> web.Response:
        size = await self._weights(request)
        files = {"config.json": 700, "model-1.safetensors": size - GIB, "model-2.safetensors": GIB}
        siblings = [{"rfilename": name, "size": bytes_} for name, bytes_ in files.items()]
        return web.json_response({"sha": COMMIT, "siblings": siblings})

    async def _config(self, request: web.Request) -> web.Response:
        await self._weights(request)
        return web.json_response(dict(CONFIG))
