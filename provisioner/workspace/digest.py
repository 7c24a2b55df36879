"""What a manifest was applied with, in one word: what differs is applied again, what does not is left alone. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

ANNOTATION: Final = "gpu-provisioner.kaito.sh/digest"


def digest(document: object) -> str:
    """Return a short word for a document of JSON's types, the same whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sealed(body: Mapping[str, Any], *, wish: object = None) -> dict[str, Any]:
    """Return the manifest with a digest among its annotations: of all of it, or of the wish alone that it follows."""
    metadata = body["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION: digest(body if wish is None else wish)}
    return {**body, "metadata": {**metadata, "annotations": annotations}}
