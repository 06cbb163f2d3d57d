"""Stage 5, tasks: services as files describe them, in a pool of their own.

Rules: pure, no I/O. Whatever a description says, it is said to its own pool: two descriptions may have the same names,
and protobuf's default pool is the runner's.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from fastrunner.base.printable import printable
from fastrunner.tasks.call_grpc.outcome import invalid_call
from fastrunner.tasks.call_grpc.sources import invalid_proto

__all__ = ["Described", "in_order"]

_SHOWN_COUNT_MAX: Final = 20
_SHOWN_SIZE_CHARS_MAX: Final = 500


class Described:
    """The services of one description."""

    def __init__(self, files: Sequence[FileDescriptorProto]) -> None:
        """`files` with those they import before them; the last one's services come first where names are the ends of
        several. Raises GrpcProblem."""
        self.pool = descriptor_pool.DescriptorPool()
        self.size_bytes = 0
        """Of the descriptors."""
        services: dict[str, ServiceDescriptor] = {}
        for file in files:
            encoded = file.SerializeToString()
            self.size_bytes += len(encoded)
            try:
                added: Any = self.pool.AddSerializedFile(encoded)
            except TypeError as error:
                raise invalid_proto(f"its descriptors do not fit together: {_shown(str(error))}") from None
            # Older versions give nothing back.
            found = (added or self.pool.FindFileByName(file.name)).services_by_name
            services = {service.full_name: service for service in found.values()} | services
        self._services = services
        self._first = {service.full_name for service in found.values()} if files else set()

    def method(self, service_name: str, name: str) -> MethodDescriptor:
        """A method by its name and its service's, or the end of that. Raises GrpcProblem."""
        service = self._service(service_name)
        for method in service.methods:
            if method.name == name:
                return method
        there = _listed(method.name for method in service.methods)
        raise invalid_call("configuration", f"{service.full_name} has no method {name}; it has {there}")

    def _service(self, name: str) -> ServiceDescriptor:
        if name in self._services:
            return self._services[name]
        found = [each for each in self._services if each.endswith(f".{name}")]
        found = [each for each in found if each in self._first] or found
        if len(found) == 1:
            return self._services[found[0]]
        if found:
            raise invalid_call("configuration", f"service {name} may be {_listed(found)}: write the whole name")
        raise invalid_call("configuration", f"the proto has no service {name}; it has {_listed(self._services)}")


def in_order(files: Iterable[FileDescriptorProto], first: str) -> list[FileDescriptorProto]:
    """Files with those they import before them, and the one of a name last. Raises GrpcProblem for cycles."""
    by_name = {file.name: file for file in files}
    ordered: dict[str, FileDescriptorProto] = {}
    pending, entered = [first], set[str]()
    while pending:
        name = pending[-1]
        missing = [each for each in by_name[name].dependency if each not in ordered and each in by_name]
        if not missing or name in ordered:
            ordered.setdefault(pending.pop(), by_name[name])
        elif name in entered:
            raise invalid_proto("its files import one another in a circle")
        else:
            entered.add(name)
            pending += missing
    return list(ordered.values())


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN_COUNT_MAX} more" if len(listed) > _SHOWN_COUNT_MAX else ""
    return _shown(", ".join(listed[:_SHOWN_COUNT_MAX])) + more if listed else "none"


def _shown(text: str) -> str:
    return printable(text)[:_SHOWN_SIZE_CHARS_MAX]
