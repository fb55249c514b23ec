"""Each rule of an assignment's life (PROTOCOL.md §6 to §8) names the tests that fail when it is broken.

The table is for whoever changes a rule, or doubts one. It is kept honest from both sides: every test in it exists, and every numbered
rule, question and outcome of the protocol is in it.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "hub" / "wire" / "PROTOCOL.md").read_text("utf-8")
CORE, EDGE, SIDECAR, REAL = "unit/hub/core", "unit/hub/edge", "unit/sidecar/core", "integration"
CLASSES = "integration/failure_classes"

# fmt: off
PROVEN: dict[str, dict[str, tuple[str, ...]]] = {
    # ── §6, by the name of the rule ──
    "6 Claim": {
        "a claim raises the fence and is committed before it is pushed": (
            f"{CORE}/test_assignments::test_a_submit_that_finds_an_idle_agent_is_claimed_in_the_same_decision",
            f"{EDGE}/test_link::test_no_answer_leaves_before_its_commit"),
        "only an agent seen within a beat and a half is given work": (
            f"{CORE}/test_assignments::test_an_agent_unseen_for_a_beat_and_a_half_is_given_nothing_until_it_speaks",),
    },
    "6 Accept": {
        "journalled, then accepted": (f"{SIDECAR}/test_holder::test_an_assignment_is_written_before_it_is_accepted",),
        "woken only on accepted": (
            f"{SIDECAR}/test_holder::test_work_begins_only_when_the_hub_confirmed_the_lease",
            f"{SIDECAR}/test_holder::test_the_agent_is_woken_after_the_run_is_written_down"),
        "said twice it is granted twice, said too late it is revoked": (
            f"{CORE}/test_assignments::test_accept_begins_the_lease_and_said_again_grants_again",
            f"{CORE}/test_assignments::test_a_late_accept_is_revoked"),
    },
    "6 No accept": {
        "sent again after a third, taken back at the end": (
            f"{CORE}/test_assignments::test_an_unanswered_assign_is_sent_again_after_a_third_and_taken_back_at_the_end",
            f"{CLASSES}/test_lock_without_lease::test_an_offer_that_nobody_takes_is_taken_back"),
        "silenced until it speaks, and counted only if it was heard": (
            f"{CORE}/test_assignments::test_a_timeout_silences_an_agent_until_it_is_heard_again",
            f"{CORE}/test_assignments::test_a_timeout_counts_only_against_an_agent_that_was_heard_after_the_offer"),
        "neither a lost socket nor a restart cuts it short": (
            f"{CORE}/test_assignments::test_a_lost_socket_changes_nothing_before_the_accept_deadline",
            f"{CORE}/test_assignments::test_after_a_hub_restart_the_accept_deadline_starts_at_readiness"),
    },
    "6 Decline": {
        "the agent waits, longer each time": (
            f"{CORE}/test_assignments::test_a_decline_makes_the_agent_wait",
            f"{CORE}/test_assignments::test_declines_double_up_to_a_minute"),
        "three reasons quarantine it, honest ones do not count, work clears it": (
            f"{CORE}/test_assignments::test_the_quarantine_ladder_is_ten_minutes_an_hour_and_a_person",
            f"{CORE}/test_assignments::test_honest_reasons_are_no_strikes",
            f"{CORE}/test_quarantine::test_a_success_ends_the_row"),
    },
    "6 Renewal": {
        "a beat renews what it names, and writes nothing": (
            f"{CORE}/test_assignments::test_beats_renew_and_silence_expires_at_four_thirds_of_the_lease",
            f"{CORE}/test_assignments::test_a_renewal_writes_nothing_and_may_leave_early"),
        "a confirmation overtakes a slow disk, anything else waits": (
            "unit/hub/services/test_conductor::test_beaten_ok_of_a_committed_lease_overtakes_a_hanging_commit",
            "unit/hub/services/test_conductor::test_beaten_lost_waits_for_its_group"),
        "the agent's deadline counts from when the answered frame was sent": (
            f"{SIDECAR}/test_holder::test_the_deadline_counts_from_when_the_answered_accept_was_sent",
            f"{SIDECAR}/test_holder::test_an_answered_beat_extends_from_when_it_was_sent"),
        "its whole tree is dead by then, whatever became of the sidecar": (
            f"{REAL}/test_shim::test_the_deadline_holds_when_the_sidecar_is_dead",
            f"{REAL}/test_shim::test_an_agent_that_ignores_sigterm_is_dead_by_the_hard_deadline",
            f"{REAL}/test_shim::test_descendants_in_sessions_of_their_own_die_with_a_clean_exit",
            f"{REAL}/test_strays::test_a_frozen_shim_is_killed_with_its_agent_once_a_bound_is_over"),
        "a run that begins past its deadline never runs": (f"{REAL}/test_shim::test_a_shim_started_past_its_deadline_exits_unrun",),
        "a lost lease stops the run and keeps the journal": (
            f"{SIDECAR}/test_holder::test_a_lost_lease_stops_the_run_and_keeps_the_journal",),
    },
    "6 Expiry": {
        "queued, refunded, dead at the third loss": (f"{CORE}/test_assignments::test_the_third_loss_is_the_last",),
        "nobody has to do anything for it": (
            f"{CLASSES}/test_lock_without_lease::test_a_holder_that_dies_for_good_loses_its_task_to_another",),
        "no refund loops for ever": (
            f"{CORE}/test_assignments::test_no_give_back_outlives_fifty_claims",
            f"{CORE}/test_assignments::test_no_parked_question_outlives_fifty_claims"),
        "a wall clock that jumps touches nothing": (
            f"{CORE}/test_assignments::test_a_wall_clock_jump_neither_expires_nor_extends_a_lease",),
    },
    "6 A broken agent, a bad task": {
        "surely the agent's: at no cost for its tasks": (
            f"{CORE}/test_quarantine::test_an_agent_whose_program_cannot_start_fails_three_tasks_for_free_and_is_kept_from_the_rest",
            f"{CORE}/test_quarantine::test_on_trial_the_first_failure_is_enough_for_the_next_level_and_costs_the_task_nothing"),
        "surely the task's: dead, and offered to no one": (
            f"{CORE}/test_quarantine::test_a_task_lost_three_times_on_sound_agents_is_dead_and_stays_dead",
            f"{CORE}/test_quarantine::test_a_task_that_fails_on_two_trusted_agents_is_the_tasks_fault_and_both_are_acquitted"),
        "no budget is a loop": (f"{CORE}/test_quarantine::test_no_refund_lets_a_task_loop_for_ever",),
    },
    "6 Restart of the hub": {
        "every lease has its full term again, and still ends": (
            f"{CORE}/test_reconcile::test_a_hub_restart_is_a_reconnection_like_any_other",
            f"{CLASSES}/test_lock_without_lease::test_a_restart_of_the_hub_keeps_no_dead_lease_alive"),
    },
    "6 Stalls of the hub": {
        "what nobody could hear counts against nobody": (
            "unit/hub/services/test_clock::test_a_stall_of_the_loop_does_not_count",
            "unit/hub/services/test_conductor::test_a_hanging_commit_counts_against_nobodys_lease",
            f"{CLASSES}/test_zombie_write::test_a_hub_that_stood_still_longer_than_a_lease_expires_nobody"),
    },
    "6 Stopping": {
        "any end of a stopping attempt ends the task as asked": (
            f"{CORE}/test_results::test_a_success_while_stopping_is_salvaged_and_the_task_cancelled",
            f"{CORE}/test_results::test_the_cause_of_a_stop_outlives_what_the_agent_says_meanwhile",
            f"{REAL}/test_sidecar::test_cancel_ends_the_agent_and_says_so"),
        "a control is sent until it is noted, and obeyed once": (
            f"{CORE}/test_reconcile::test_a_control_is_sent_again_until_it_is_noted",
            f"{REAL}/test_link::test_a_control_that_arrives_twice_is_obeyed_once_and_confirmed_twice"),
    },
    "6 Questions": {
        "a question blocks, its answer resumes": (f"{CORE}/test_assignments::test_a_question_blocks_and_its_answer_resumes",),
        "parked without a lease, and no counter moves": (
            f"{CORE}/test_assignments::test_parking_gives_the_lease_up_and_moves_no_counter",
            f"{REAL}/test_sidecar::test_a_question_nobody_answers_parks_the_task"),
        "parking that crosses the answer queues at once": (
            f"{CORE}/test_assignments::test_parking_that_crosses_the_answer_queues_at_once",),
        "under a lease that is over it ends the run that asks": (
            f"{CORE}/test_departures::test_a_question_under_a_lease_that_is_over_ends_the_run_that_asks",),
    },
    # ── §7: the questions in their order, then what else is said of results ──
    "7 is the attempt known to have been given to another agent?": {
        "stale": (f"{CORE}/test_results::test_4_another_agents_fence_is_stale",)},
    "7 did a result end or salvage this attempt already?": {
        "duplicate, and the first stays": (
            f"{CORE}/test_results::test_1_a_result_said_twice_is_a_duplicate",
            f"{CORE}/test_results::test_1_another_body_for_an_ended_attempt_keeps_the_first_and_leaves_a_note",
            f"{CLASSES}/test_lost_report::test_another_body_for_the_same_lease_never_replaces_the_first")},
    "7 does the sender hold this task under this `lease_epoch`?": {
        "applied": (f"{CORE}/test_results::test_2_the_open_holder_is_applied_even_before_its_accept_was_heard",)},
    "7 is the task queued after a loss, under the same `lease_epoch`, and is this a success that fits it?": {
        "applied late": (
            f"{CORE}/test_results::test_3_a_late_success_of_an_expired_lease_is_applied",
            f"{CORE}/test_results::test_3_a_late_change_goes_to_review",
            f"{CLASSES}/test_zombie_write::test_a_success_that_comes_too_late_but_before_anybody_else_is_welcome")},
    "7 is there anything worth keeping: a success, a change, an unreadable body?": {
        "salvaged": (
            f"{CORE}/test_results::test_3_a_late_result_that_is_no_full_success_is_salvaged",
            f"{CORE}/test_results::test_4_a_late_success_after_the_task_was_given_away_is_salvaged",
            f"{CLASSES}/test_zombie_write::test_a_reaped_worker_overwrites_nothing_and_what_it_made_is_kept")},
    "7 –": {"stale": (f"{CORE}/test_results::test_4_a_late_failure_is_merely_stale",)},
    "7 verdicts": {
        "an unreadable body is a failure, kept raw": (
            f"{CORE}/test_results::test_a_malformed_body_of_the_holder_is_kept_raw_and_fails_the_run",
            f"{EDGE}/test_link::test_a_malformed_result_still_ends_in_a_verdict_and_is_no_violation"),
        "of a task that is not in memory, or nowhere": (
            f"{CORE}/test_results::test_4_a_task_long_out_of_memory_is_settled_on_its_attempt_row",
            f"{CORE}/test_adopting::test_the_same_result_of_an_unknown_task_is_kept_once_and_a_decision_about_it_stays",
            f"{CLASSES}/test_lost_report::test_a_result_of_a_task_nobody_knows_gets_a_verdict_too"),
        "a fence to come cannot be spoilt": (
            f"{CORE}/test_results::test_a_lie_about_a_fence_to_come_does_not_spoil_it",),
        "journalled until it is acknowledged, sent for ever": (
            f"{SIDECAR}/test_holder::test_only_an_acknowledgement_removes_a_result",
            f"{SIDECAR}/test_holder::test_a_result_is_sent_again_for_ever_at_growing_intervals_up_to_a_minute",
            f"{CLASSES}/test_lost_report::test_a_hub_killed_before_the_commit_of_a_result_applies_it_when_it_is_back",
            f"{CLASSES}/test_lost_report::test_a_hub_killed_after_the_commit_of_a_result_knows_it_when_it_is_back"),
    },
    "7 outcomes": {
        "each with what it costs": (
            f"{CORE}/test_results::test_what_each_outcome_costs",
            f"{CORE}/test_results::test_a_rate_limits_own_delay_wins",
            f"{CORE}/test_results::test_a_retry_runs_again_until_the_tries_are_used_up"),
        "interrupted and cancelled without being asked are losses": (f"{CORE}/test_results::test_what_each_outcome_costs",),
    },
    "7 salvage": {
        "what an applied result leaves behind is kept, too": (
            f"{CORE}/test_adopting::test_the_commits_of_a_failed_run_are_kept_for_the_next",
            f"{CORE}/test_adopting::test_what_an_applied_result_left_uncommitted_is_kept_without_its_commits"),
        "the next attempt is told of it": (
            "unit/hub/store/test_salvage::test_a_claim_is_told_of_the_newest_open_records_within_bounds",
            f"{REAL}/test_salvage::test_the_next_attempt_is_told_of_the_commits_of_a_failed_one_and_builds_on_them"),
        "adopted under a new fence, once, and gated": (
            f"{CORE}/test_adopting::test_adopted_commits_go_to_review_under_a_new_fence",
            f"{CORE}/test_adopting::test_of_two_at_once_one_wins",
            f"{REAL}/test_salvage::test_a_person_adopts_what_a_cancelled_run_had_done_and_the_gate_merges_it"),
    },
    "7 outside effects": {
        "only the applied lease's branch is merged": (
            f"{REAL}/test_gatekeeper::test_a_crash_around_the_push_merges_exactly_once",
            f"{CLASSES}/test_done_is_merged::test_done_names_a_commit_that_is_on_the_base"),
    },
    # ── §8: the table of verdicts, then what is said below it ──
    "8 ACCEPT": {"": (f"{CORE}/test_reconcile::test_assigned_and_held_is_taken_as_accept",)},
    "8 ASSIGN_AGAIN": {"": (f"{CORE}/test_reconcile::test_assigned_and_absent_is_assigned_again",)},
    "8 SEND_RESULT": {"": (
        f"{CORE}/test_reconcile::test_assigned_and_outbox_sends_the_result_which_is_applied",
        f"{CORE}/test_reconcile::test_working_and_outbox_keeps_the_lease_until_the_result_arrives",
        f"{CORE}/test_reconcile::test_a_stale_outbox_item_does_not_renew_the_present_lease",
        f"{CORE}/test_reconcile::test_outbox_wins_when_the_sidecar_says_both")},
    "8 KEEP": {"": (
        f"{CORE}/test_reconcile::test_working_and_held_is_kept",
        f"{CORE}/test_reconcile::test_blocked_and_held_is_kept_with_its_question",
        f"{REAL}/test_sidecar::test_a_killed_sidecar_finds_its_running_agent_again_and_nothing_runs_twice")},
    "8 LOST": {"": (f"{CORE}/test_reconcile::test_working_and_silent_from_the_same_install_is_lost_at_once",)},
    "8 WAIT_FOR_EXPIRY": {"": (f"{CORE}/test_reconcile::test_working_and_silent_from_another_install_waits_for_expiry",)},
    "8 STOP": {"": (
        f"{CORE}/test_reconcile::test_another_fence_is_stopped_or_asked_for_and_touches_nothing",
        f"{CORE}/test_reconcile::test_somebody_elses_assignment_is_stopped",
        f"{SIDECAR}/test_holder::test_the_verdict_stop_ends_a_run_and_drops_what_did_not_begin")},
    "8 NOTHING": {"": (f"{CORE}/test_reconcile::test_another_fence_is_stopped_or_asked_for_and_touches_nothing",)},
    "8 Same `install_id`": {
        "supersedes, and the old session is powerless": (
            f"{CORE}/test_reconcile::test_the_same_install_supersedes_the_old_session",
            f"{CORE}/test_reconcile::test_an_old_session_changes_nothing",
            f"{CORE}/test_reconcile::test_the_clean_up_of_an_old_session_never_touches_the_new",
            f"{CLASSES}/test_stale_state::test_of_two_sessions_only_the_newer_speaks")},
    "8 An old `hello`": {"": (f"{CORE}/test_reconcile::test_a_hello_that_may_be_the_newest_is_heard",)},
    "8 Another `install_id`": {
        "4410 while the old one lives or holds": (
            f"{CORE}/test_reconcile::test_another_install_is_refused_while_the_old_lives_or_holds_a_lease",
            f"{CLASSES}/test_lock_without_lease::test_a_machine_made_anew_is_let_in_when_the_old_lease_is_over"),
        "released by somebody who knows, or by itself": (
            f"{CORE}/test_departures::test_a_released_agents_task_is_queued_at_once_and_at_nobodys_cost",
            f"{CLASSES}/test_lock_without_lease::test_a_machine_made_anew_is_let_in_at_once_when_somebody_releases_the_old_one",
            f"{CLASSES}/test_lock_without_lease::test_a_machine_that_leaves_gives_its_task_back_at_once")},
    "8 An agent that was removed": {"": (
        f"{CORE}/test_departures::test_an_agent_is_removed_when_nothing_of_it_is_left",
        f"{CLASSES}/test_lock_without_lease::test_an_agent_that_is_gone_is_removed_and_told_so_if_it_comes_back")},
    "8 A sidecar reconnects": {
        "spread, waiting each window out": (
            "unit/sidecar/test_backoff::test_the_first_reconnection_is_spread_over_its_window",
            "unit/sidecar/test_backoff::test_windows_double_up_to_about_a_minute",
            "unit/sidecar/test_backoff::test_windows_stay_short_while_the_hub_waits_for_a_lease",
            "unit/sidecar/test_backoff::test_an_early_attempt_waits_out_its_window_before_the_next",
            "unit/sidecar/test_backoff::test_the_hub_says_how_long_to_wait",
            "unit/sidecar/test_backoff::test_a_stable_minute_forgets_the_failures_and_less_does_not"),
        "flapping ends it": (
            "unit/sidecar/test_backoff::test_a_superseded_agent_waits_half_a_minute_and_gives_up_at_the_third_time_in_five_minutes",)},
    "8 Presence": {"": (
        f"{CORE}/test_reconcile::test_presence_waits_out_a_blip",
        f"{CLASSES}/test_stale_state::test_a_blip_makes_no_noise_and_a_loss_shows_after_its_grace",
        f"{CLASSES}/test_stale_state::test_a_half_open_link_is_given_up")},
    "8 Observers": {
        "every event after a position, or a reset; never a part": (
            f"{EDGE}/test_events::test_a_position_before_the_ring_is_resumed_from_the_rows_without_gap",
            f"{EDGE}/test_events::test_pruned_rows_are_a_reset_never_a_partial_stream",
            "unit/hub/client/test_stream::test_a_broken_stream_resumes_behind_the_last_event_seen")},
}
# fmt: on


def section(number: int) -> str:
    return re.split(r"^## ", PROTOCOL, flags=re.MULTILINE)[number]


def test_every_numbered_rule_question_row_and_bullet_is_in_the_table() -> None:
    asked = {f"6 {name}" for name in re.findall(r"^\d+\. \*\*(.+?)\.\*\*", section(6), re.MULTILINE)}
    questions = section(7).split("| question |", 1)[1].split("\n\n", 1)[0]
    asked |= {f"7 {row}" for row in re.findall(r"^\| ([^|]*?) \|", questions, re.MULTILINE) if not row.startswith("--")}
    asked |= {f"8 {rule}" for rule in re.findall(r"\| ([A-Z_]{3,}) \|", section(8))}
    asked |= {f"8 {name}" for name in re.findall(r"^- \*\*(.+?)\*\*", section(8), re.MULTILINE)}
    asked -= {"7 question"}
    assert len(asked) > 30, "the sections are not where they were"
    assert asked - set(PROVEN) == set()


@cache
def defined_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("rule", PROVEN)
def test_every_test_in_the_table_exists(rule: str) -> None:
    for clause, names in PROVEN[rule].items():
        assert names, clause
        for name in names:
            file, _, test = name.partition("::")
            assert test in defined_in(ROOT / "tests" / f"{file}.py"), f"{rule} {clause}: {name}"
