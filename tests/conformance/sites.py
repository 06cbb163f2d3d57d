"""Support: what each host answers that the specification's documents call."""

import base64
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.conformance.hosts import Hosts, Site

__all__ = ["FUNCTION", "SITES"]

PETS = {number: {"id": number, "name": f"Pet {number}", "status": "available"} for number in (1, 2, 69)}

FUNCTION = """\
input:
  schema:
    document: {type: object, required: [message, level]}
set:
  logged: ${ . as $given | .format | sub("{LEVEL}"; $given.level) | sub("{MESSAGE}"; $given.message) }
"""
"""What stands in the catalog for the specification's `log`."""


def _said(answer: Any, status: int = 200) -> web.Response:
    return web.json_response(answer, status=status)


async def petstore(request: web.Request, hosts: Hosts) -> web.StreamResponse:
    """Pets by number and by status; what is put is stored nowhere and sent back."""
    path = request.path.removeprefix("/v2/pet/")
    if request.path == "/v2/swagger.json":
        return _said(SWAGGER)
    if path == "findByStatus":
        return _said([pet for pet in PETS.values() if pet["status"] == request.query["status"]])
    if request.method == "PUT":
        return _said(await request.json())
    pet = PETS.get(int(path)) if path.isdecimal() else None
    return _said(pet) if pet else _said({"message": "Pet not found"}, 404)


def _parameter(name: str, where: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": where, "required": True, **schema}


def _operation(operation_id: str, parameter: Mapping[str, Any]) -> dict[str, Any]:
    responses = {"200": {"description": "found", "schema": {}}}
    return {"get": {"operationId": operation_id, "parameters": [parameter], "responses": responses}}


SWAGGER = {
    "swagger": "2.0",
    "info": {"title": "Swagger Petstore", "version": "1.0.7"},
    "host": "petstore.swagger.io",
    "basePath": "/v2",
    "schemes": ["https", "http"],
    "produces": ["application/json"],
    "paths": {
        "/pet/findByStatus": _operation(
            "findPetsByStatus",
            _parameter(
                "status",
                "query",
                type="array",
                items={"type": "string", "enum": ["available", "pending", "sold"]},
                collectionFormat="multi",
            ),
        ),
        "/pet/{petId}": _operation("getPetById", _parameter("petId", "path", type="integer", format="int64")),
    },
}
"""The part of the petstore's own description that documents call, in its form."""


async def httpbin(request: web.Request, hosts: Hosts) -> web.StreamResponse:
    """`/basic-auth/USER/PASSWORD` wants those."""
    _, _, user, password = request.path.split("/")
    if request.headers.get("Authorization") != f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}":
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="kit"'})
    return _said({"authenticated": True, "user": user})


async def swapi(request: web.Request, hosts: Hosts) -> web.StreamResponse:
    """One character and its planet."""
    if request.path == "/api/planets/1/":
        return _said({"name": "Tatooine"})
    luke = {"name": "Luke Skywalker", "homeworld": "https://swapi.dev/api/planets/1/"}
    if request.path == "/api/people/1":
        return _said(luke)
    return _said({"count": 1, "results": [luke]} if request.query["search"] in luke["name"] else {"count": 0})


async def keycloak(request: web.Request, hosts: Hosts) -> web.StreamResponse:
    """Gives the runtime's client a token, and says where."""
    realm = "/realms/fake-authority"
    if request.path == f"{realm}/.well-known/openid-configuration":
        return _said({"issuer": f"http://keycloak{realm}", "token_endpoint": f"http://keycloak{realm}/token"})
    form = await request.post()
    wanted = ("client_credentials", "workflow-runtime-id", "workflow-runtime-secret")
    if (form.get("grant_type"), form.get("client_id"), form.get("client_secret")) != wanted:
        return _said({"error": "invalid_client"}, 401)
    return _said({"access_token": request.path.removeprefix(realm), "token_type": "Bearer", "expires_in": 60})


async def hospital(request: web.Request, hosts: Hosts) -> web.StreamResponse:
    """The doctor answers; the nurses never do."""
    if request.path.endswith("/nurses"):
        await hosts.closing.wait()
    return _said({"alerted": request.path.rpartition("/")[2]})


async def github(request: web.Request, hosts: Hosts) -> web.StreamResponse:
    """One function of the specification's catalog."""
    if request.path != "/serverlessworkflow/catalog/main/functions/log/1.0.0/function.yaml":
        raise web.HTTPNotFound
    return web.Response(text=FUNCTION)


async def fake(request: web.Request, hosts: Hosts) -> web.StreamResponse:
    """A service that AsyncAPI documents describe, of either version: takes pets, and tells of what goes on."""
    if request.path == "/docs/asyncapi.json":
        return _said(_asyncapi_3(hosts.ports[80]))
    if request.path == "/docs/asyncapi-2.json":
        return _said(_asyncapi_2(hosts.ports[80]))
    if request.path != "/notifications":
        return _said({"taken": request.path}, 202)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    for message in hosts.notifications:
        if message is None:
            await socket.close()
            return socket
        if callable(message):
            message()
        else:
            await socket.send_json(message)
    # Until the other side closes, or the test ends.
    await socket.receive()
    return socket


def _asyncapi_3(port: int) -> dict[str, Any]:
    def channel(address: str, server: str) -> dict[str, Any]:
        messages = {"any": {"payload": {"type": "object"}}}
        return {"address": address, "servers": [{"$ref": f"#/servers/{server}"}], "messages": messages}

    host = f"fake.com:{port}"
    post = {"http": {"method": "POST"}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Fake", "version": "1.0.0"},
        "defaultContentType": "application/json",
        "servers": {"staging": {"host": host, "protocol": "http"}, "live": {"host": host, "protocol": "ws"}},
        "channels": {"pets": channel("/pets", "staging"), "notifications": channel("/notifications", "live")},
        "operations": {
            "findPetsByStatus": {"action": "receive", "channel": {"$ref": "#/channels/pets"}, "bindings": post},
            "getNotifications": {"action": "send", "channel": {"$ref": "#/channels/notifications"}},
        },
    }


def _asyncapi_2(port: int) -> dict[str, Any]:
    return {
        "asyncapi": "2.6.0",
        "info": {"title": "Fake", "version": "1.0.0"},
        "defaultContentType": "application/json",
        "servers": {"live": {"url": f"fake.com:{port}", "protocol": "ws"}},
        "channels": {"/notifications": {"subscribe": {"message": {"payload": {"type": "object"}}}}},
    }


async def taking(request: web.Request, hosts: Hosts) -> web.StreamResponse:
    """Takes everything, and says that it has."""
    return _said({"taken": request.path})


SITES: Mapping[str, Site] = {
    "petstore.swagger.io": petstore,
    "httpbin.org": httpbin,
    "swapi.dev": swapi,
    "keycloak": keycloak,
    "fake-hospital.com": hospital,
    "raw.githubusercontent.com": github,
    "fake.com": fake,
    **dict.fromkeys(
        (
            "superbet-casinos.com",
            "fake-chat-api.com",
            "virtual-wf-powered-race.com",
            "external-service.example.com",
            "example.com",
            "hospital.example.com",
        ),
        taking,
    ),
}
