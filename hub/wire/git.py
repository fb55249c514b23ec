"""How both sides speak to git: one hardened command line, one environment built from nothing, names that are safe to pass on.

Pure: it builds values and runs nothing. A repository may have been written by an agent, so every command says for itself
what repository content, user configuration and the caller's environment would otherwise decide: no hooks, no monitors, no
helpers, no replaced objects, no cached graphs that could lie. Names that arrive from outside are validated before they
reach an argv; callers still put ``--end-of-options`` or ``--`` before them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from hub.ids import LeaseEpoch, TaskId, task_ref

Protocol = Literal["https", "ssh", "file"]

NAME_LIMIT_BYTES = 200
"""Longest branch or ref name: leaves room for our prefixes in a 255-byte path component."""
URL_LIMIT_CHARS = 2048

TRAILER_TASK = "AgentCom-Task"
TRAILER_LEASE_EPOCH = "AgentCom-Lease-Epoch"

_CONFIG: Final[Mapping[str, str]] = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    # Asked for the tips of an alternate, git runs for-each-ref inside the repository that owns it; answer nothing instead.
    "core.alternateRefsCommand": ":",
    # Files beside the objects that claim to summarise them: in an agent's repository they may lie.
    "core.commitGraph": "false",
    "core.multiPackIndex": "false",
    # What a ref names must outlive a power cut with it: by default git syncs neither refs nor single objects.
    "core.fsync": "all",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.quotePath": "false",
    "transfer.fsckObjects": "true",
    # Faults of very old but honest histories that every large forge tolerates.
    "fetch.fsck.badTimezone": "warn",
    "fetch.fsck.missingSpaceBeforeDate": "warn",
    "fetch.fsck.zeroPaddedFilemode": "warn",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "submodule.recurse": "false",
    "diff.ignoreSubmodules": "all",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}

_ALWAYS: Final[Mapping[str, str]] = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_MERGE_AUTOEDIT": "no",
    "GIT_EDITOR": ":",
    "SSH_ASKPASS_REQUIRE": "never",
}

_PASSED: Final = ("PATH", "TMPDIR", "SYSTEMROOT")
_CREDENTIALS: Final = (
    *("HOME", "USER", "LOGNAME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"),
    *("SSH_AUTH_SOCK", "SSH_AGENT_PID", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT"),
    *("GIT_ASKPASS", "GIT_CONFIG_GLOBAL", "GNUPGHOME"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
)


class UnsafeNameError(ValueError):
    """A branch, ref or URL that must not reach git. ``code`` is stable; the message is fit for the user."""

    retryable = False

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def git_argv(*args: str, git_dir: str | None = None, work_tree: str | None = None) -> list[str]:
    """The full argv of one git command.

    ``args`` is the subcommand and its arguments; anything from outside stands behind ``--end-of-options`` or ``--`` there. Name
    ``git_dir`` whenever a repository exists: git then neither searches for one nor doubts its owner.
    """
    argv = ["git", "--no-pager"]
    for key, value in _CONFIG.items():
        argv += ["-c", f"{key}={value}"]
    if git_dir is not None:
        argv.append(f"--git-dir={git_dir}")
    if work_tree is not None:
        argv.append(f"--work-tree={work_tree}")
    return [*argv, *args]


def git_env(environ: Mapping[str, str], *, credentials: bool = False, allow_file: bool = False) -> dict[str, str]:
    """The complete environment of one git command, built from nothing but a short list of ``environ``.

    ``credentials`` lets the operator's home, global configuration, agent socket and proxy through: only for commands that
    talk to a remote (fetch, push, ls-remote), never for one that reads a work tree. ``allow_file`` admits remotes on this
    machine's disk. ``ext::`` and every other transport stay closed whatever the configuration says.
    """
    names = _PASSED + _CREDENTIALS if credentials else _PASSED
    env = {name: environ[name] for name in names if name in environ}
    env.update(_ALWAYS)
    env["GIT_ALLOW_PROTOCOL"] = "file:https:ssh" if allow_file else "https:ssh"
    if not credentials:
        env["HOME"] = "/nonexistent"
        env["GIT_CONFIG_GLOBAL"] = "/dev/null"
    return env


def identity_env(name: str, email: str) -> dict[str, str]:
    """Author and committer as environment, which no configuration file can override."""
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }


def has_controls(text: str) -> bool:
    """Whether ``text`` holds control, bidi or other invisible formatting characters, line separators or lone surrogates."""
    # what is printable holds none of them, and that is most of all text: the categories are looked up for the rest alone
    return not text.isprintable() and any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text)


def check_ref_name(name: str) -> str:
    """Return a full ref (``refs/…``) unchanged, or raise :class:`UnsafeNameError`.

    Rules of ``git check-ref-format``, and: at most 200 bytes, no control or invisible formatting characters.
    """
    if not name.startswith("refs/"):
        raise UnsafeNameError("invalid_ref", f"{name[:80]!r} is not a full ref name; it starts with refs/")
    _check_name(name, "invalid_ref")
    return name


def check_branch_name(name: str) -> str:
    """Return a branch name unchanged, or raise :class:`UnsafeNameError`.

    Stricter than ``git check-ref-format --branch`` in the same way as :func:`check_ref_name`.
    """
    if name.startswith(("refs/", "-")) or name in {"HEAD", "@"}:
        cure = "write it without refs/heads/" if name.startswith("refs/") else "write the branch's own name, like main"
        raise UnsafeNameError("invalid_branch", f"{name[:80]!r} cannot be the name of a branch; {cure}")
    _check_name(name, "invalid_branch")
    return name


_FORBIDDEN_IN_NAME = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock/|\.$|\.lock$|^[./]|/$")


def _check_name(name: str, code: str) -> None:
    found = _FORBIDDEN_IN_NAME.search(name)
    if not name or found is not None:
        reason = f"{found[0]!r} is not allowed there" if found else "it is empty"
        raise UnsafeNameError(code, f"{name[:80]!r} is not a legal git name: {reason}")
    if has_controls(name):
        raise UnsafeNameError(code, f"{name[:80]!r} holds invisible or control characters")
    if len(name.encode()) > NAME_LIMIT_BYTES:
        raise UnsafeNameError(code, f"{name[:80]!r}… is longer than {NAME_LIMIT_BYTES} bytes")


_SCP_LIKE = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]):(?![:-])[^:]\S*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:.]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_url(url: str) -> Protocol:
    """The transport of a remote's address: ``https://``, ``ssh://``, ``user@host:path``, ``file:///path`` or an absolute path.

    Raises :class:`UnsafeNameError` for everything else: other transports (``ext::`` runs commands), a leading dash (an
    option), control characters also when percent-encoded (they reach credential helpers), and credentials inside the
    address (they would end in logs and records; the operator's git credential store is the place for them).
    """
    if not url or len(url) > URL_LIMIT_CHARS or url.startswith("-") or has_controls(url) or has_controls(unquote(url)):
        raise _bad_url(url, "it is empty, too long, starts with a dash or holds control characters")
    if url.startswith("/"):
        return "file"
    if "://" not in url:
        if _SCP_LIKE.fullmatch(url) is None:
            raise _bad_url(url, "write https://…, ssh://…, user@host:path or an absolute path")
        return "ssh"
    try:
        parts = urlsplit(url)
        port_is_legal = parts.port is None or parts.port > 0
    except ValueError as fault:
        raise _bad_url(url, str(fault)) from None
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise _bad_url(url, "a file address names an absolute path on this machine")
        return "file"
    if parts.scheme not in {"https", "ssh"}:
        raise _bad_url(url, f"transport {parts.scheme[:20]!r} is not allowed")
    if parts.password is not None or (parts.scheme == "https" and parts.username is not None):
        raise UnsafeNameError(
            "credentials_in_url", "an address must not carry credentials; keep them in the operator's git credential store"
        )
    if parts.username is not None and _USER.fullmatch(parts.username) is None:
        raise _bad_url(url, "the user name has characters that are not allowed")
    if not port_is_legal or _HOST.fullmatch(parts.hostname or "") is None or " " in url:
        raise _bad_url(url, "the host is missing or malformed")
    return "https" if parts.scheme == "https" else "ssh"


def _bad_url(url: str, reason: str) -> UnsafeNameError:
    """Names the transport at most: a malformed address may still carry a secret, and messages end in logs."""
    head = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,15}:", url)
    return UnsafeNameError("invalid_url", f"the address {head[0] + '…' if head else '…'} cannot be used: {reason}")


def assignment_branch(task: TaskId, lease_epoch: LeaseEpoch) -> str:
    """The branch of one lease of a task. The epoch in the name is the fence of everything pushed: ``agentcom/t-17/3``."""
    return f"agentcom/{task_ref(task)}/{lease_epoch}"


def salvage_branch(task: TaskId, lease_epoch: LeaseEpoch) -> str:
    """The branch on which work left uncommitted is offered: ``agentcom/salvage/t-17/3``."""
    return f"agentcom/salvage/{task_ref(task)}/{lease_epoch}"


def trailers(task: TaskId, lease_epoch: LeaseEpoch) -> str:
    """The two trailer lines that tie a commit to its lease."""
    return f"{TRAILER_TASK}: {task_ref(task)}\n{TRAILER_LEASE_EPOCH}: {lease_epoch}"
