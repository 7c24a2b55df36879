"""What a call to the Kubernetes API can fail with, in the terms a reconciler decides by."""


class KubeError(Exception):
    """A call did not do what was asked. `status` is the HTTP status, 0 where no answer came.

    `told` is what the API server itself had to say; where no answer came, the whole message.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", told: str = "") -> None:
        super().__init__(message)
        self.told = told or message
        self.status = status
        # The machine-readable reason of the API's Status object: `AlreadyExists` and `Conflict` are both a 409.
        self.reason = reason


# The names say what is the case, as the API's own reasons do; an `Error` behind each would say nothing more.


class Conflict(KubeError):
    """409: the object has changed since it was read, or exists already."""


class Gone(KubeError):
    """404: the object is not there any more, or its kind is not served (yet)."""


class Unserved(Gone):
    """404 for the whole kind: its CRD is not installed, or not yet served by an API server that starts.

    It says nothing about any object: whoever took it for the end of one would leave it alone for good.
    """


class Rejected(KubeError):
    """400, 422 and the like: the API server will never take this body."""


class Forbidden(KubeError):
    """403: the message names the verb and the resource that a role lacks, or the policy that objects."""


class Unavailable(KubeError):
    """No usable answer: 5xx, 429, 401, a broken connection, a timeout. A write may have been carried out all the same.

    `retry_after` is in seconds, from the Retry-After header.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        told: str = "",
        retry_after: float | None = None,
        lost: bool = False,
    ) -> None:
        super().__init__(message, status=status, reason=reason, told=told)
        self.retry_after = retry_after
        # True where the connection broke before an answer came, so that repeating a read at once makes sense.
        self.lost = lost
