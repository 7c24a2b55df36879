"""`python -m tests.charts`: builds Helm where it has not been built."""

import sys

from tests.charts.binary import HELM

if __name__ == "__main__":
    sys.exit(HELM.main())
