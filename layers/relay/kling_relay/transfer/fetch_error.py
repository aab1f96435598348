"""Define the one error of a fetch: a class of failure, never a URL."""


class FetchError(Exception):
    """A fetch that did not start or did not finish.

    `reason`, which is the whole text, is one of: `refused_url` (malformed), `refused_host` (by `check_host`),
    `refused_address` (not a public IP address), `unresolved`, `network`, `tls`, `timeout`, `status` (neither 200 nor a
    206 that holds every byte; the number is in `status`), `bad_response` (encoded, malformed, too many redirects,
    another range than requested), `too_large`, `truncated`.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
