"""The tier of a change: each rule alone decides it, and whatever is not known makes it 3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.content import Findings, examine, is_hidden
from hub.core.errors import Refused
from hub.core.paths import PROTECTED, is_manifest, is_test, matches, protected_as
from hub.core.risk import ChangeFacts, FileFact, Measured, Policy, Ripple, Verified, assess, parse_policy
from hub.ids import Tier

POLICY = Policy()


def file(path: str = "src/a.py", **fields: Any) -> FileFact:
    blank = FileFact(path=path, status="M", added=1, deleted=1, old_mode="100644", new_mode="100644", old_lines=10)
    return replace(blank, **fields)


def facts(*files: FileFact, **fields: Any) -> ChangeFacts:
    measured = Measured(
        files=files or (file(),), findings=fields.pop("findings", Findings()), complete=fields.pop("complete", True)
    )
    return replace(ChangeFacts(measured=measured, verification=Verified.PASSED, registered=True), **fields)


def tier(*files: FileFact, **fields: Any) -> Tier:
    return assess(facts(*files, **fields), POLICY).tier


def test_a_small_verified_change_is_tier_1_and_says_why() -> None:
    found = assess(facts(verification_note="checked"), POLICY)
    assert (found.tier, found.reasons) == (Tier.LOW, ("2 changed lines in 1 file, nothing protected; checked",))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"files": [file(added=20)]}, "21 changed lines (limit 20 for tier 1)"),
        ({"files": [file(f"{n}.py") for n in range(4)]}, "4 files (limit 3 for tier 1)"),
        ({"files": [file("requirements-dev.txt")]}, "may change dependencies: requirements-dev.txt"),
        ({"registered": False}, "none of the passed checks is registered with the repository"),
    ],
)
def test_each_bound_of_tier_1_gives_tier_2(changed: dict[str, Any], reason: str) -> None:
    found = assess(facts(*changed.pop("files", ()), **changed), POLICY)
    assert (found.tier, found.reasons) == (Tier.MEDIUM, (reason,))


def test_exactly_the_bounds_of_tier_1_are_within() -> None:
    assert (
        tier(file("a.py", added=18, deleted=0), file("b.py", added=1, deleted=0), file("c.py", added=1, deleted=0)) is Tier.LOW
    )


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"files": [file("Makefile")]}, "Makefile (defines the checks)"),
        ({"files": [file("x.py", status="R", old_path="deploy/x.py")]}, "deploy/x.py (infrastructure)"),
        ({"files": [file(new_mode="120000")]}, "symbolic link"),
        ({"files": [file(old_mode="120000", status="D", new_mode="000000")]}, "symbolic link"),
        ({"files": [file(new_mode="160000")]}, "submodule"),
        ({"files": [file(new_mode="100755")]}, "executable bit changed"),
        ({"files": [file(old_mode="100755")]}, "executable bit changed"),
        ({"files": [file(status="A", old_mode="000000", new_mode="100755")]}, "executable bit changed"),
        ({"files": [file(new_mode="100666")]}, "unknown file mode"),
        ({"files": [file(status="X")]}, "unknown kind of change 'X'"),
        ({"files": [file(binary=True)]}, "binary content"),
        ({"files": [file("a\u202eb")]}, "invisible characters in a file name"),
        ({"files": [file(deleted=300, old_lines=1000)]}, "deletes 300 lines (limit 300)"),
        ({"files": [file(deleted=50, old_lines=100)]}, "rewrites 50 % of src/a.py (100 lines)"),
        ({"files": [file(deleted=50, old_lines=None)]}, "rewritten is not known"),
        ({"files": [file("tests/test_a.py", status="D", new_mode="000000")]}, "deletes tests: tests/test_a.py"),
        ({"files": [file("a.py", status="R", old_path="test_a.py")]}, "deletes tests: test_a.py"),
        ({"findings": Findings(tests_removed=2)}, "removes 2 test cases"),
        ({"findings": Findings(hidden=("a.py",))}, "control characters in a.py"),
        ({"findings": Findings(secrets=(("a.py", "an API key"),))}, "what looks like an API key in a.py"),
        ({"complete": False}, "not known"),
        ({"verification": Verified.FAILED, "verification_note": "2 of 3"}, "verification failed: 2 of 3"),
        ({"verification": Verified.MISSING}, "not verified"),
        ({"ripple": (Ripple(path="src/a.py", by="t-9"),)}, "t-9 also touches or names src/a.py"),
        ({"unknown": ("the moon is full",)}, "the moon is full"),
    ],
)
def test_each_rule_of_tier_3_decides_alone(changed: dict[str, Any], part: str) -> None:
    found = assess(facts(*changed.pop("files", ()), **changed), POLICY)
    assert found.tier is Tier.HIGH
    assert len(found.reasons) == 1
    assert part in found.reasons[0]


@pytest.mark.parametrize(
    "harmless",
    [
        file(deleted=49, old_lines=100),
        file(deleted=99, old_lines=99),
        file(deleted=299, old_lines=1000),
        file(deleted=49, old_lines=None),
        file("tests/new.py", status="R", old_path="tests/old.py"),
        file(old_mode="100755", new_mode="100755"),
        file("run", status="D", old_mode="100755", new_mode="000000"),
    ],
)
def test_just_below_a_bound_is_not_tier_3(harmless: FileFact) -> None:
    assert tier(harmless) is not Tier.HIGH


def test_checks_that_are_still_to_pass_do_not_raise_the_tier() -> None:
    assert tier(verification=Verified.REQUIRED) is Tier.LOW


def test_a_path_with_invisible_characters_is_shown_escaped() -> None:
    reasons = assess(facts(file("config/\u202e\x1b[0m")), POLICY).reasons
    assert all(reason.isprintable() for reason in reasons)


FILES = st.builds(
    FileFact,
    path=st.text(min_size=1, max_size=20),
    status=st.sampled_from("AMDRCTX"),
    added=st.integers(0, 500),
    deleted=st.integers(0, 500),
    old_mode=st.sampled_from(["000000", "100644", "100755", "120000", "160000", "1"]),
    new_mode=st.sampled_from(["000000", "100644", "100755", "120000", "160000", "1"]),
    binary=st.booleans(),
    old_path=st.none() | st.text(min_size=1, max_size=20),
    old_lines=st.none() | st.integers(0, 1000),
)


@given(st.lists(FILES, max_size=6), st.sampled_from(Verified), st.booleans(), st.booleans())
def test_any_facts_give_a_tier_with_reasons_and_more_files_never_a_lower_one(
    files: list[FileFact], verification: Verified, registered: bool, complete: bool
) -> None:
    def judged(some: list[FileFact]) -> Tier:
        measured = Measured(files=tuple(some), complete=complete)
        found = assess(ChangeFacts(measured=measured, verification=verification, registered=registered), POLICY)
        assert found.reasons
        assert all(reason.isprintable() for reason in found.reasons)
        return found.tier

    assert judged(files) >= judged(files[:-1])
    if not complete or verification in {Verified.FAILED, Verified.MISSING}:
        assert judged(files) is Tier.HIGH


# ── policy ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_empty_policy_is_the_default_and_merges_nothing_by_itself() -> None:
    assert parse_policy("{}") == Policy()
    assert not Policy().auto_merge_tier1


def test_an_invalid_policy_lists_every_fault() -> None:
    with pytest.raises(Refused) as refused:
        parse_policy('{"auto_merge_tier1": "yes", "merge": "rebase", "typo": 1, "max_rework": 9}')
    assert (refused.value.status, refused.value.code) == (422, "invalid_policy")
    assert {fault.loc for fault in refused.value.faults} == {
        "policy.auto_merge_tier1",
        "policy.merge",
        "policy.typo",
        "policy.max_rework",
    }


def test_a_policy_adds_protected_paths_and_exempts_others() -> None:
    policy = parse_policy('{"protected": ["/core/"], "unprotected": ["Makefile", "/core/x.py"]}')
    assert assess(facts(file("Makefile")), policy).tier is Tier.LOW
    assert assess(facts(file("core/x.py")), policy).tier is Tier.HIGH, "what is protected by hand is not exempt"
    assert assess(facts(file("lib/core/x.py")), policy).tier is Tier.LOW


# ── paths ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("glob", "covered", "not_covered"),
    [
        ("Makefile", ["Makefile", "a/b/makefile"], ["Makefile.md", "aMakefile"]),
        ("ci/", ["ci/x", "a/ci/b/c"], ["ci", "xci/y"]),
        ("/ops/", ["ops/a", "ops/a/b"], ["src/ops/a", "ops"]),
        ("*.lock", ["a.lock", "x/y.lock"], ["a.lock.md", "lock"]),
        ("requirements/*.txt", ["requirements/a.txt"], ["requirements/a/b.txt", "x/requirements/a.txt"]),
        ("src/**/gen.py", ["src/gen.py", "src/a/b/gen.py"], ["gen.py"]),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("a.b", ["a.b"], ["axb"]),
        (".env.*", [".env.local"], [".env"]),
    ],
)
def test_globs_read_like_gitignore(glob: str, covered: list[str], not_covered: list[str]) -> None:
    assert [path for path in covered if not matches(path, [glob])] == []
    assert [path for path in not_covered if matches(path, [glob])] == []


@pytest.mark.parametrize(
    "path",
    [
        *(".github/workflows/ci.yml", "Dockerfile", "infra/main.tf", "config/prod.yaml", "src/auth/session.py", "poetry.lock"),
        *("db/migrations/1.sql", "package.json", "tests/conftest.py", "pyproject.toml", ".gitattributes", "sub/.gitmodules"),
        *("AGENTS.md", "CLAUDE.md", ".claude/settings.json", "Cargo.lock", "go.sum", "pytest.ini"),
    ],
)
def test_what_the_rule_names_is_protected(path: str) -> None:
    assert protected_as(path) in PROTECTED


@pytest.mark.parametrize("path", ["src/author.py", "README.md", "docs/config.md", "lib/locks.py", "operations/x.py"])
def test_ordinary_files_are_not_protected(path: str) -> None:
    assert protected_as(path) is None


def test_tests_and_manifests_are_known_by_their_names() -> None:
    assert all(map(is_test, ["tests/a.py", "x/test_a.py", "a_test.go", "b.spec.ts", "AppTest.java"]))
    assert not any(map(is_test, ["src/contest.py", "latest.py", "attest/a.py"]))
    assert all(map(is_manifest, ["go.mod", "requirements.txt", "sub/Cargo.toml"]))


# ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def patch(*lines: str, path: str = "a.py") -> str:
    head = f"diff --git a/{path} b/{path}\nindex 1..2 100644\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n"
    return head + "\n".join(lines) + "\n"


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200f", "\u200b", "\x1b", "\x00", "\x08", "\x9b", "\U000e0041"])
def test_invisible_characters_in_added_lines_are_found(char: str) -> None:
    assert examine(patch(f"+x{char}y")).hidden == ("a.py",)
    assert examine(patch(f"-x{char}y")).hidden == (), "removing them is no risk"


@pytest.mark.parametrize("text", ["tab\there", "windows\r", "form\x0cfeed", "é ü 漢字 🎉", "\ufefffirst line"])
def test_ordinary_text_hides_nothing(text: str) -> None:
    assert examine(patch(f"+{text}")).hidden == ()


SECRET_LINES = [
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "ghp_" + "a" * 36,
    "glpat-" + "a" * 20,
    "xoxb-" + "1234567890-ab",
    "sk-ant-" + "a" * 30,
    "https://user:" + "hunter22@example.org/x",
    "api_key = '" + "a1" * 12 + "'",
]


@pytest.mark.parametrize("line", SECRET_LINES)
def test_secrets_are_found_and_never_repeated(line: str) -> None:
    found = examine(patch(f"+{line}"))
    assert len(found.secrets) >= 1
    assert line not in str(found)
    assert examine(patch(f"-{line}")).secrets == ()


def test_a_secret_in_a_very_long_line_is_found_wherever_it_is() -> None:
    for offset in (0, 16_370, 16_384, 40_000):
        line = " " * offset + SECRET_LINES[2] + " " * 20_000
        assert examine(patch(f"+{line}")).secrets == (("a.py", "a GitHub token"),), offset


@pytest.mark.parametrize(
    "line", ["password = os.environ['X']", "token: str", "https://${USER}:${PASS}@host/", "sk-learn is fine"]
)
def test_ordinary_code_is_no_secret(line: str) -> None:
    assert examine(patch(f"+{line}")).secrets == ()


def test_tests_that_move_are_not_removed_and_tests_that_vanish_are() -> None:
    moved = patch("-def test_a():") + patch("+def test_a():", path="b.py")
    assert examine(moved).tests_removed == 0
    assert examine(patch("-def test_a():", "-    async def test_b(self):", "+def helper():")).tests_removed == 2


def test_an_added_line_that_looks_like_a_header_changes_no_path() -> None:
    assert examine(patch("+++ b/fake.py", "+\u202e")).hidden == ("a.py",)


@given(st.text())
def test_any_text_can_be_examined(text: str) -> None:
    examine(text)
    assert is_hidden("\u202e" + text)
