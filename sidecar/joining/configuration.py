"""The step that writes the sidecar's file, and does not touch what a person has made of it."""

from __future__ import annotations

from hub.wire.finding import Finding, fail
from sidecar.files import write_durably
from sidecar.joining.config import is_sealed, render, seal
from sidecar.joining.plan import Plan
from sidecar.joining.step import Joining, Outcome, StepError, read_text
from sidecar.settings import SettingsError, load


def configuration(joining: Joining) -> Outcome:
    """The sidecar's file: written if nobody has edited the one that is there, which is kept beside it."""
    plan = joining.plan
    text = seal(render(plan.page))
    before = read_text(plan.config)
    if before == text:
        return Outcome(f"{plan.config}, unchanged")
    if before is not None and not is_sealed(before):
        if faults := unfit(plan):
            raise StepError(faults)
        return Outcome(f"{plan.config}, edited by hand, is kept as it is")
    if before is not None:
        write_durably(plan.config.with_name(f"{plan.config.name}.bak"), before)
    plan.config.parent.mkdir(mode=0o755, parents=True, exist_ok=True)  # a hub of this machine may have its file there, too
    write_durably(plan.config, text)
    load(plan.config)  # it was made of checked values; a fault here is ours
    joining.config_changed = True
    return Outcome(f"{plan.config}{'' if before is None else f'; the one before is {plan.config.name}.bak'}")


def unfit(plan: Plan) -> list[Finding]:
    """What keeps a person's file from serving this join: nothing, if there is none or a join wrote it."""
    before = read_text(plan.config)
    if before is None or is_sealed(before):
        return []
    aside = f"move it away, or name another with --config: {plan.config}"
    try:
        settings = load(plan.config)
    except SettingsError as fault:
        return [fail("configuration", line, f"correct it, or {aside}") for line in fault.faults]
    meant = (
        ("hub_url", settings.hub_url, plan.page.hub_url),
        ("state_dir", settings.state_dir, plan.state_dir),
        ("run_as", settings.run_as, plan.run_as),
    )
    faults = [
        fail("configuration", f"{plan.config} was edited: {key} is {there}, not {wanted}", f"correct it, or {aside}")
        for key, there, wanted in meant
        if there != wanted
    ]
    if missing := sorted(set(plan.agents) - {agent.id for agent in settings.agents}):
        faults.append(fail("configuration", f"{plan.config} was edited, without {', '.join(missing)}", f"add them, or {aside}"))
    return faults
