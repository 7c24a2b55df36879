"""`python -m fakes.serving`: installs vLLM for CPU where it is not installed."""

import sys

from fakes.serving import environment


def main() -> int:
    """Run the command and return its exit code: 0 when vLLM is there."""
    try:
        environment.ensure()
    except (environment.EnvironmentMissing, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
