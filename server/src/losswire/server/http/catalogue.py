"""The catalogue, the server's description and its health, over HTTP."""

from functools import lru_cache
from typing import Any, Final

from losswire.server.catalogue.describe import describe
from losswire.server.catalogue.registry import Registry
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call, max_body_bytes
from losswire.server.http.json_text import dump
from losswire.server.http.message_json import to_json
from losswire.server.http.route import JSON, Parameter, Route, ref
from losswire.server.rpc.server_info import server_info

_TEXT: Final = "text/plain; charset=utf-8"


async def list_losses(call: Call) -> Answer:
    """List every loss."""
    body = _list_of(call.services.evaluator.registry)
    return Answer(media_type=JSON, body=(body,))


@lru_cache(maxsize=4)
def _list_of(registry: Registry) -> bytes:
    """Return the list as JSON, which is formed once: that takes some milliseconds."""
    return dump({"losses": [to_json(describe(each)) for each in registry]})


async def get_loss(call: Call) -> Answer:
    """Describe one loss; UnknownLossError when there is none of this name."""
    record = call.services.evaluator.registry.find(call.path["name"])
    return json_answer(to_json(describe(record)))


async def get_server(call: Call) -> Answer:
    """Return versions, device, limits and transports."""
    services = call.services
    info: dict[str, Any] = to_json(
        server_info(services.evaluator, services.settings, services.worker_id)
    )
    info["runs"] = services.settings.store != "none"
    info["grpc"] = {"address": services.grpc_address()}
    info["http"] = {"max_body_bytes": max_body_bytes(services)}
    return json_answer(info)


async def get_health(call: Call) -> Answer:
    """Answer 200 as long as the process should go on."""
    if call.services.is_live():
        return Answer(media_type=_TEXT, body=(b"ok\n",))
    return Answer(status=503, media_type=_TEXT, body=(b"hangs or has lost its device\n",))


async def get_readiness(call: Call) -> Answer:
    """Answer 200 as long as gRPC's health says SERVING."""
    if call.services.is_ready():
        return Answer(media_type=_TEXT, body=(b"ready\n",))
    return Answer(status=503, media_type=_TEXT, body=(b"not ready\n",))


ROUTES: Final = (
    Route(
        path="/v1/losses",
        handler=list_losses,
        name="listLosses",
        summary="List every loss",
        description="Everything a form or a check needs: inputs, options, layouts, reductions.",
        answers={JSON: ref("LossList")},
    ),
    Route(
        path="/v1/losses/{name}",
        handler=get_loss,
        name="getLoss",
        summary="Describe one loss",
        parameters=(
            Parameter(
                name="name",
                place="path",
                required=True,
                description="The name, as torch.nn.functional has it, such as `cross_entropy`.",
                schema={"type": "string", "minLength": 1},
            ),
        ),
        answers={JSON: ref("LossInfo")},
        problems=(404,),
    ),
    Route(
        path="/v1/server",
        handler=get_server,
        name="getServerInfo",
        summary="Describe the server",
        description="Versions, device, limits and transports.",
        tag="server",
        answers={JSON: ref("ServerInfo")},
    ),
    Route(
        path="/healthz",
        handler=get_health,
        name="getHealth",
        is_open=True,
        summary="Answer 200 while the process should go on",
        description="503 when its engine hangs or has lost its device: it has to be replaced.",
        tag="server",
        answers={"text/plain": {"type": "string"}},
        statuses=(200, 503),
    ),
    Route(
        path="/readyz",
        handler=get_readiness,
        name="getReadiness",
        is_open=True,
        summary="Answer 200 while the server accepts calls",
        description="503 while it starts, drains, computes wrong results or has lost its device.",
        tag="server",
        answers={"text/plain": {"type": "string"}},
        statuses=(200, 503),
    ),
)
