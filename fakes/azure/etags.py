"""If-Match and If-None-Match, after the table in https://learn.microsoft.com/azure/aks/use-etags."""

from dataclasses import dataclass

from fakes.azure import errors


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The two headers as sent, None where absent."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check_put(self, etag: str | None) -> None:
        """Raise 412 unless a PUT may go ahead; `etag` is that of what exists, None where nothing does."""
        if etag is None and self.if_match:
            raise errors.precondition_failed(
                "Resource not found but ETag header is provided. "
                "If this is a request to create, please do not provide ETag."
            )
        self.check_delete(etag)

    def check_delete(self, etag: str | None) -> None:
        """Raise 412 unless a DELETE may go ahead. Nothing to delete is never a failed condition."""
        if etag is None:
            return
        if self.if_match and not _matches(self.if_match, etag):
            raise errors.precondition_failed(
                f"Etag provided in if-match header {_bare(self.if_match)} does not match etag {etag} of resource."
            )
        if self.if_none_match and _matches(self.if_none_match, etag):
            raise errors.precondition_failed(
                f"Etag provided in if-none-match header {_bare(self.if_none_match)} matches the existing resource."
            )


def _matches(header: str, etag: str) -> bool:
    return _bare(header) in ("*", etag)


def _bare(header: str) -> str:
    # SDKs send the tag in quotes, bodies carry it without.
    return header.strip().removeprefix("W/").strip('"')
