"""What a path says about the risk of touching it: protected, a test, a dependency manifest.

Pure. Globs read like ``.gitignore``: a pattern without an inner slash matches a name at any depth, one with a slash
(also a leading one) is anchored at the root, a trailing slash means everything beneath, ``**`` crosses directories.
Matching ignores case: a file system may, and a ``makefile`` runs as well as a ``Makefile``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache


def _globs(*lines: str) -> tuple[str, ...]:
    return tuple(glob for line in lines for glob in line.split())


PROTECTED: Mapping[str, tuple[str, ...]] = {
    "continuous integration": _globs(
        ".github/ .gitea/ .forgejo/ .circleci/ .buildkite/ .ci/ .husky/ .gitlab-ci.yml .travis.yml Jenkinsfile",
        "azure-pipelines*.yml bitbucket-pipelines.yml .drone.yml .woodpecker* .pre-commit-config.yaml",
    ),
    "infrastructure": _globs(
        "Dockerfile* *.dockerfile docker-compose* compose.y*ml *.tf *.tfvars *.service *.nix Procfile Vagrantfile",
        "/infra/ /deploy/ /ops/ /charts/ terraform/ ansible/ k8s/ kubernetes/ helm/",
    ),
    "configuration": _globs("config/ /conf/ .env .env.* *.pem *.key"),
    "authentication": _globs(
        "auth/ security/ auth.* auth_* *_auth.* authn* authz* oauth* login.* *password* *credential* *permissions*",
        "*secrets* CODEOWNERS",
    ),
    "lock file": _globs(
        "*.lock *.lockb *.lockfile package-lock.json npm-shrinkwrap.json pnpm-lock.yaml go.sum Package.resolved",
        "packages.lock.json",
    ),
    "migration": _globs("migrations/ migrate/ alembic/"),
    "defines the checks": _globs(
        "Makefile GNUmakefile *.mk justfile Taskfile.y*ml Rakefile CMakeLists.txt meson.build build.rs .cargo/ mix.exs",
        "package.json pyproject.toml setup.py setup.cfg tox.ini noxfile.py pytest.ini conftest.py sitecustomize.py",
        "mypy.ini ruff.toml .coveragerc .eslintrc* eslint.config.* jest.config.* vitest.config.* karma.conf.* .mocharc*",
        "playwright.config.* cypress.config.* pom.xml build.gradle* settings.gradle*",
    ),
    "changes git's meaning": _globs(".gitattributes .gitmodules .gitconfig .lfsconfig"),
    "instructs agents": _globs(
        "AGENTS.md CLAUDE*.md GEMINI.md SOUL.md .claude/ .codex/ .cursor/ .agents/ .cursorrules .windsurfrules .aider*",
        ".mcp.json",
    ),
}
"""Why a path is protected → globs. A repository's policy adds to and exempts from these."""

MANIFESTS = _globs(
    "requirements*.txt requirements/*.txt constraints*.txt Pipfile environment.y*ml go.mod go.work Cargo.toml Gemfile",
    "*.gemspec composer.json pubspec.yaml *.csproj *.fsproj Package.swift build.sbt deps.edn bower.json deno.json*",
    "vcpkg.json conanfile.* package.json pyproject.toml setup.py pom.xml mix.exs build.gradle*",
)
"""Files in which a dependency is declared: a change of one may add a dependency."""

TESTS = _globs(
    "tests/ test/ __tests__/ spec/ specs/ test_*.* *_test.* *_tests.* *.test.* *.spec.* *_spec.*",
    "*Test.java *Tests.cs *Test.kt",
)
"""Where tests live."""


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    body = glob.strip("/")
    anchored = "/" in glob.rstrip("/")
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", body)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    middle = "".join(wild.get(token) or re.escape(token) for token in tokens)
    tail = "/.+" if glob.endswith("/") else "(?:/.*)?"
    return re.compile(("" if anchored else "(?:.*/)?") + middle + tail, re.IGNORECASE | re.DOTALL)


def matches(path: str, globs: Iterable[str]) -> bool:
    """Whether any of ``globs`` covers ``path`` (relative to the root, with forward slashes)."""
    return any(_compiled(glob).fullmatch(path) for glob in globs)


def protected_as(path: str, *, added: Iterable[str] = (), exempt: Iterable[str] = ()) -> str | None:
    """Why ``path`` is protected, or None. What an operator added cannot be exempted by the same policy."""
    if matches(path, added):
        return "protected by the repository's policy"
    if matches(path, exempt):
        return None
    return next((why for why, globs in PROTECTED.items() if matches(path, globs)), None)


def is_test(path: str) -> bool:
    """Whether the path is a test's."""
    return matches(path, TESTS)


def is_manifest(path: str) -> bool:
    """Whether the path declares dependencies."""
    return matches(path, MANIFESTS)
