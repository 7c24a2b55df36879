"""`python -m tests.argocd`: builds GopherLua where it has not been built."""

import sys

from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.process import SupervisorError
from tests.argocd import binary


def main() -> int:
    """Run the command and return its exit code: 0 when it is there."""
    try:
        binary.ensure()
    except (BinariesMissing, SupervisorError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
