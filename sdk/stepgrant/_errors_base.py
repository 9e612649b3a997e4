"""The base of all errors, and those of set-up, arguments, results and the broker. Public as `stepgrant.errors`."""

from __future__ import annotations

from typing import Final


def _revive(kind: type[StepgrantError], args: tuple[object, ...], state: dict[str, object]) -> StepgrantError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


PUBLIC: Final = "stepgrant.errors"
_PRIVATE: Final = frozenset({"stepgrant._errors", "stepgrant._errors_base", "stepgrant._verification_errors"})


class StepgrantError(Exception):
    """Base of all. `code` is stable; match on it, never on the text."""

    code: str = "stepgrant_error"

    def __init_subclass__(cls) -> None:
        """Where a class is public is what a traceback names, and where a pickle finds it again."""
        super().__init_subclass__()
        if cls.__module__ in _PRIVATE:
            cls.__module__ = PUBLIC

    def __reduce__(self) -> tuple[object, ...]:
        """Without this, pickle would call the class with the message alone and lose every keyword field."""
        return _revive, (type(self), self.args, dict(self.__dict__))


StepgrantError.__module__ = PUBLIC


def with_wait(message: str, retry_after: float | None) -> str:
    """A message, with the seconds to wait where there are some."""
    return message if retry_after is None else f"{message}; try again in {retry_after:g} s"


class ConfigurationError(StepgrantError):
    """The set-up is wrong: an environment variable, a key file, a declaration. Nothing was tried."""

    code = "configuration_error"


class NotJson(StepgrantError):
    """An argument or a result is not JSON. `what` names it; `path` is the JSON Pointer of the place inside it."""

    code = "not_json"

    def __init__(self, *, what: str, path: str, why: str) -> None:
        super().__init__(f"{what} is not JSON at {path or 'the top'}: {why}")
        self.what = what
        self.path = path
        self.why = why


class OrdinalUnderConcurrency(StepgrantError):
    """Calls that run side by side have no order that survives a crash: give each a `step_id`."""

    code = "ordinal_under_concurrency"


class CredentialMisuse(StepgrantError):
    """A credential was used outside what it is for: another origin, after its end, outside its tool call."""

    code = "credential_misuse"


class KeyLost(StepgrantError):
    """A holder's key was used in a forked process. It never leaves the process that made it: open the run there."""

    code = "key_lost"


class NotExecuted(StepgrantError):
    """Raised by a tool that knows for sure: the effect did not happen and cannot happen any more."""

    code = "not_executed"


class ResultWithheld(StepgrantError):
    """The step is completed and will not be done again, but its result was not stored, so it cannot be given back."""

    code = "result_withheld"
    _why = "was not stored when it completed"

    def __init__(self, *, step: str) -> None:
        super().__init__(f"the result of step {step!r} {self._why}; the step is completed")
        self.step = step


class SecretInResult(ResultWithheld):
    """The tool's result contains a live secret. The step is completed; the result is neither stored nor returned."""

    code = "secret_in_result"
    _why = "contains a live secret and is withheld"


# --------------------------------------------------------------------------------------------------------- the broker


class BrokerError(StepgrantError):
    """The broker refused; nothing was released. `code`, `title`, `detail` and `status` are as it answered.

    `status`: of HTTP; 0 where there was no answer.
    """

    code = "broker_error"

    def __init__(
        self, *, code: str, status: int, title: str = "", detail: str = "", retry_after: float | None = None
    ) -> None:
        said = ": ".join(part for part in (title, detail) if part)
        answered = f" (HTTP {status})" if status else ""
        super().__init__(with_wait(f"{code}{answered}{': ' if said else ''}{said}", retry_after))
        self.code = code
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after = retry_after


class AuthenticationFailed(BrokerError):
    """The broker did not accept the workload's identity; `code` is OAuth's (invalid_client, invalid_request, ...)."""


class BrokerUnavailable(BrokerError):
    """The broker, or something it depends on, cannot be reached. Nothing was released, the tool did not run."""

    def __init__(
        self,
        *,
        code: str = "broker_unavailable",
        status: int = 0,
        title: str = "",
        detail: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code=code, status=status, title=title, detail=detail, retry_after=retry_after)
