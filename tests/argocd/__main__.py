"""`python -m tests.argocd`: builds GopherLua where it has not been built."""

import sys

from tests.argocd.binary import LUA

if __name__ == "__main__":
    sys.exit(LUA.main())
