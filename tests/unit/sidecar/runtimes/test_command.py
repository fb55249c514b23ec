"""The command runtime: templates that no text can escape from, and outcomes that need more than an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.ids import LeaseEpoch, TaskId
from hub.wire.spec import Spec, Usage
from sidecar.core.records import Exited, decode, encode
from sidecar.runtimes.base import TEXT_BYTES, Asked, RunSpec, RuntimeFault, Said
from sidecar.runtimes.command import CommandRuntime, SuccessRule

EXITED = {"exit": 0, "signal": None, "stopped": None, "unrun": False, "error": None}


def run_spec(prompt: str = "do it", **more) -> RunSpec:
    spec = Spec(task=TaskId(3), lease_epoch=LeaseEpoch(1), title="t", **more)
    return RunSpec(spec=spec, round=0, cwd=Path("/w"), prompt=prompt, prompt_file=Path("/r/prompt.md"), env={"PATH": "/bin"})


def test_placeholders_are_filled_inside_single_arguments() -> None:
    runtime = CommandRuntime(["agent", "--in={cwd}", "{task_id}", "{model}", "{prompt_file}", "{prompt}"])
    launch = runtime.launch(run_spec("a 'b' $(c)\n`d`", model="big"))
    assert launch.argv == ("agent", "--in=/w", "t-3", "big", "/r/prompt.md", "a 'b' $(c)\n`d`")
    assert launch.env == {"PATH": "/bin"}


def test_placeholders_in_a_tasks_text_stay_text() -> None:
    assert CommandRuntime(["agent", "{prompt}"]).launch(run_spec("{cwd} {nonsense}")).argv[1] == "{cwd} {nonsense}"


@pytest.mark.parametrize(
    ("argv", "words"), [(["a", "{promt}"], "unknown placeholder {promt}"), ([], "program"), ([""], "program")]
)
def test_a_bad_template_is_refused_with_the_reason(argv: list[str], words: str) -> None:
    with pytest.raises(ValueError, match="argv") as fault:
        CommandRuntime(argv)
    assert words in str(fault.value)


def test_a_prompt_too_long_for_an_argument_names_the_cure() -> None:
    with pytest.raises(RuntimeFault) as fault:
        CommandRuntime(["agent", "{prompt}"]).launch(run_spec("x" * 102_401))
    assert fault.value.code == "prompt_too_long"
    assert "{prompt_file}" in str(fault.value)
    CommandRuntime(["agent", "{prompt_file}"]).launch(run_spec("x" * 102_401))


def test_the_prompt_can_come_on_stdin() -> None:
    launch = CommandRuntime(["agent"], stdin="prompt").launch(run_spec("hello"))
    assert (launch.stdin, launch.keep_stdin) == ("hello", False)


def end(runtime: CommandRuntime, lines: list[str], terminal: dict | None = None, cwd: Path = Path("/nowhere")):
    reader = runtime.reader()
    events = [event for line in lines for event in reader.feed({"out": line})]
    return reader.end({**EXITED, **(terminal or {})}, cwd), events


def test_exit_zero_is_success_by_default_and_anything_else_is_not() -> None:
    runtime = CommandRuntime(["agent"])
    assert end(runtime, ["done"])[0].ok
    failed, _ = end(runtime, ["boom"], {"exit": 2})
    assert (failed.ok, failed.code, failed.retryable, failed.text) == (False, "agent_failed", True, "boom\n")


def test_a_killed_agent_failed_whatever_it_said() -> None:
    runtime = CommandRuntime(["agent"], success=SuccessRule(kind="outcome"))
    killed, _ = end(runtime, ['{"outcome": "succeeded"}'], {"exit": None, "signal": 9})
    assert killed.code == "agent_killed"


def test_a_program_that_cannot_start_is_no_fault_of_the_task() -> None:
    failed, _ = end(CommandRuntime(["agent"]), [], {"exit": 127, "unrun": True, "error": "no such file"})
    assert (failed.code, failed.retryable) == ("cannot_start", True)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (['{"outcome": "succeeded"}'], ""),
        (["all good"], "no_outcome"),
        (['{"outcome": '], "no_outcome"),
        (['{"outcome": "succeeded"}', '{"outcome": "failed", "code": "tests_red"}'], "tests_red"),
        (['{"outcome": "failed"}', '{"outcome": "succeeded"}'], ""),
    ],
)
def test_the_last_outcome_line_counts(lines: list[str], code: str) -> None:
    assert end(CommandRuntime(["agent"], success=SuccessRule(kind="outcome")), lines)[0].code == code


def test_success_may_need_a_marker_line() -> None:
    runtime = CommandRuntime(["agent"], success=SuccessRule(kind="marker", marker="ALL DONE"))
    assert end(runtime, ["ALL DONE"])[0].ok
    assert end(runtime, ["not ALL DONE"])[0].code == "no_marker"


def test_success_may_need_a_marker_file(tmp_path: Path) -> None:
    runtime = CommandRuntime(["agent"], success=SuccessRule(kind="marker_file", marker="ok.txt"))
    assert end(runtime, [], cwd=tmp_path)[0].code == "no_marker"
    (tmp_path / "ok.txt").touch()
    assert end(runtime, [], cwd=tmp_path)[0].ok


def test_json_lines_carry_questions_text_and_usage() -> None:
    runtime = CommandRuntime(["agent"], events="jsonl")
    ended, events = end(
        runtime,
        [
            '{"question": {"qid": "q1", "text": "which?", "options": ["a", 2]}}',
            '{"text": "working"}',
            '{"usage": {"input": 5, "cost": 0.25}}',
            '{"usage": {"input": 2, "output": 1, "model": "m"}}',
            '{"usage": "nonsense"}',
            '{"question": {"text": "nobody can answer this"}}',
            "plain",
        ],
    )
    assert events == [Asked(qid="q1", text="which?", options=("a", "2")), Said(text="working")]
    assert ended.usage == Usage(input=7, output=1, cost=0.25, model="m")
    assert ended.text == "working\nplain\n"
    assert runtime.launch(run_spec()).keep_stdin
    assert runtime.answer("q1", "b\n") == '{"answer":{"qid":"q1","text":"b\\n"}}\n'


def test_a_plain_programs_braces_are_only_text() -> None:
    ended, events = end(CommandRuntime(["agent"]), ['{"question": {"qid": "q", "text": "?"}}'])
    assert events == []
    assert "question" in ended.text


def test_the_end_of_long_output_is_kept() -> None:
    ended, _ = end(CommandRuntime(["agent"]), ["x" * 1000] * 100 + ["the end"])
    assert ended.text.endswith("the end\n")
    assert len(ended.text.encode()) <= 32_768


@pytest.mark.parametrize("said", ['{"cost": 1.7e308}', '{"input": 9007199254740992, "cached": 9007199254740992, "output": 1}'])
def test_usage_that_adds_up_beyond_all_bounds_still_makes_a_record_that_can_be_read(said: str) -> None:
    ended, _ = end(CommandRuntime(["agent"], events="jsonl"), [f'{{"usage": {said}}}'] * 3)
    record = Exited(task=TaskId(3), lease_epoch=LeaseEpoch(1), run_id="r", stopped=None, end=ended)
    assert decode(encode(record)) == record
    assert ended.usage is not None


@pytest.mark.parametrize("cost", ["1e999", "-1", '"Infinity"', '"NaN"'])
def test_a_cost_that_is_no_amount_is_not_counted(cost: str) -> None:
    lines = ['{"usage": {"cost": 0.5}}', f'{{"usage": {{"cost": {cost}}}}}']
    assert end(CommandRuntime(["agent"], events="jsonl"), lines)[0].usage == Usage(cost=0.5)


def test_only_as_many_lines_are_kept_as_fill_the_tail() -> None:
    reader = CommandRuntime(["agent"]).reader()
    for number in range(20_000):
        reader.feed({"out": f"{number:09}"})
    assert sum(map(len, reader._tail)) < TEXT_BYTES + 10
    text = reader.end(EXITED, Path("/nowhere")).text
    assert len(text) == TEXT_BYTES
    assert text.endswith("000019998\n000019999\n")
