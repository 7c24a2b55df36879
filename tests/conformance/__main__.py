"""`python -m tests.conformance`: builds Karpenter's suite where it has not been built."""

import sys

from tests.conformance.suite import SUITE

if __name__ == "__main__":
    sys.exit(SUITE.main())
