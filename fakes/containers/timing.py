"""The kubelet's own pace."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Real seconds.

    The first restart comes at once, the second after `back_off`, then twice as late each time up to `longest`, and anew
    from the start after a container has run for `good_run`. `retry` is between two looks at what a pod refers to and
    that is not there. `least` is what is left of a grace period that a preStop hook has used up.
    """

    back_off: float = 10
    longest: float = 300
    good_run: float = 600
    retry: float = 2
    least: float = 2
