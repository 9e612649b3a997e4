"""What can go wrong with a service, said so that a person can act on it."""


class ServiceError(RuntimeError):
    """A service did not do what was asked; the message holds the end of its log, without secrets."""


class ServiceMissing(ServiceError):
    """No usable binary; the message says where it was looked for and exactly what to install or to set."""


class BuildFailed(ServiceError):
    """A binary could not be built or fetched; the message holds the end of the tool's output."""
