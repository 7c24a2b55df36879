"""What the work queue holds."""

from typing import Final

# The kind of an object, and its name.
Key = tuple[str, str]

NODE_KIND: Final = "Node"
