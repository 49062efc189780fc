"""One error class for each boundary; nothing in the package raises a bare `Exception`.

`UserError` is the user's to mend (exit code 2, one line). `InfrastructureError` and its children
are faults of the machine: they make an episode *errored* or a check *undecided*, never a reward
(exit code 3). A verdict ("invalid", "not resolved") is a value, not an exception.
"""

from __future__ import annotations

import errno

EXHAUSTED = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EAGAIN, errno.EMFILE,
    errno.ENFILE,
})  # fmt: skip
"""Numbers of an `OSError` that tell of the machine, and nothing of what it was asked about."""


class SelfplayError(Exception):
    """Base of all errors of this package."""


class UserError(SelfplayError):
    """Wrong usage or input. The message names the file, the value and the remedy."""


class PatchError(UserError):
    """A patch cannot be parsed, leaves the tree, or does not apply."""


class InfrastructureError(SelfplayError):
    """Something outside the experiment failed; the work may be repeated."""


class SandboxError(InfrastructureError):
    """The sandbox could not be started, or died by itself."""


class SandboxSpent(SelfplayError):
    """What ran in a sandbox used up its memory or disk, and the sandbox was ended for it: the doing
    of what ran, not a fault of the machine."""


class PolicyError(InfrastructureError):
    """The inference engine failed to answer."""


class RepoError(InfrastructureError):
    """A repository could not be fetched, built or discovered."""
