"""Unique addresses for Nodes and pods."""

import ipaddress
from collections.abc import Iterator

# The first addresses of an Azure subnet are the platform's own; the first machine of a subnet gets .4.
FIRST_HOST = 4


class AddressBook:
    """Hands out the addresses of one network, one per owner, and knows those given out before a restart."""

    def __init__(self, network: str) -> None:
        self._network = ipaddress.ip_network(network)
        self._of: dict[str, str] = {}
        self._used: set[str] = set()
        self._next = self._walk()

    def take(self, owner: str) -> str:
        """Return the owner's address; a new one the first time.

        Raises:
            RuntimeError: the network is full.
        """
        if owner not in self._of:
            # One round of the walk sees every address once.
            for _ in range(self._network.num_addresses):
                address = next(self._next)
                if address not in self._used:
                    self.note(owner, address)
                    break
            else:
                raise RuntimeError(f"no free address in {self._network}")
        return self._of[owner]

    def note(self, owner: str, address: str) -> None:
        """Take in an address found on an object."""
        self.release(owner)
        self._of[owner] = address
        self._used.add(address)

    def release(self, owner: str) -> None:
        """Give an owner's address back."""
        self._used.discard(self._of.pop(owner, ""))

    def _walk(self) -> Iterator[str]:
        # Onwards, not from the start each time: an address is not reused at once, as with Azure's own network plugin.
        while True:
            for offset in range(FIRST_HOST, self._network.num_addresses - 1):
                yield str(self._network[offset])
