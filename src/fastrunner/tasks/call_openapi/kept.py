"""Stage 5, tasks: the operations that a worker has read, and the documents that it read last.

Theory of operation: an operation is small and a document is not, so operations are kept in number, documents by the
size of their texts. Both are known by the hash of the text: a document that has changed is another one. Large texts are
read one at a time, because values take several times the memory of their text.
"""

import asyncio
from collections import OrderedDict
from contextlib import nullcontext

from fastrunner.base import limits
from fastrunner.tasks.call_http.slices import in_slices
from fastrunner.tasks.call_openapi.document import Document, Found, malformed
from fastrunner.tasks.call_openapi.operation import Operation
from fastrunner.tasks.call_openapi.version2 import operation_of_version_2
from fastrunner.tasks.call_openapi.version3 import operation_of_version_3
from fastrunner.tasks.descriptions import Description
from fastrunner.tasks.documents import NoData, parsed

__all__ = ["Operations"]


class Operations:
    """Operations of described services."""

    def __init__(self) -> None:
        self._operations: OrderedDict[tuple[bytes, str, str], Operation] = OrderedDict()
        self._documents: OrderedDict[bytes, tuple[Document, int]] = OrderedDict()
        self.kept_size_chars = 0
        """Text of the documents whose data is kept."""
        self._turn = asyncio.Lock()

    async def get(self, description: Description, name: str) -> Operation:
        """The operation of an `operationId`. Raises RequestProblem."""
        # Servers may be relative to where the document is.
        key = description.digest, description.url, name
        operation = self._operations.get(key)
        if operation is None:
            document = await self._document(description)
            operation = _operation(document, description.url, name, await in_slices(document.find(name)))
            self._operations[key] = operation
            if len(self._operations) > limits.OPENAPI_OPERATIONS_KEPT_MAX:
                self._operations.popitem(last=False)
        self._operations.move_to_end(key)
        return operation

    async def _document(self, description: Description) -> Document:
        is_large = len(description.text) > limits.HTTP_RESPONSE_SMALL_SIZE_BYTES
        async with self._turn if is_large else nullcontext():
            if description.digest in self._documents:
                self._documents.move_to_end(description.digest)
                return self._documents[description.digest][0]
            try:
                document = Document(await in_slices(parsed(description.text)))
            except NoData as problem:
                raise malformed(str(problem)) from None
            await in_slices(document.read_operations())
            self._keep(description, document)
            return document

    def _keep(self, description: Description, document: Document) -> None:
        size_chars = len(description.text)
        if description.digest in self._documents or size_chars > limits.OPENAPI_DOCUMENTS_KEPT_SIZE_CHARS_MAX:
            return
        self._documents[description.digest] = document, size_chars
        self.kept_size_chars += size_chars
        while self.kept_size_chars > limits.OPENAPI_DOCUMENTS_KEPT_SIZE_CHARS_MAX:
            _, (_, size_chars) = self._documents.popitem(last=False)
            self.kept_size_chars -= size_chars


def _operation(document: Document, url: str, name: str, found: Found) -> Operation:
    document.begin()
    make = operation_of_version_2 if document.is_version_2 else operation_of_version_3
    return make(document, url, name, found)
