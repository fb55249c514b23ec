"""Failpoints: named places before and after what must survive a crash, where a test kills, delays or fails a real process.

The product has no call site. A failpoint is a *seam*: a row of :data:`seams.SEAMS` names a function of the product, and its two points
are ``<side>.<what>[.<label>].<before|after>``: ``hub.commit.after`` lies between a durable group and everything that is told of it,
``sidecar.send.result.before`` between a journalled result and its frame. Programs are wrapped by a launcher that only tests start::

    AGENTCOM_FAILPOINTS='hub.commit.after:kill@20' python -m tests.support.failpoints hub.cli server start-dev …
    AGENTCOM_FAILPOINTS='sidecar.append.woken.after:kill,shim.close.before:delay(500)' python -m tests.support.failpoints sidecar run …
    python -m tests.support.failpoints --list

``NAME:ACTION[@N][%P]``, separated by commas. Actions: ``kill`` (SIGKILL to the process itself), ``error`` (the natural fault of the
seam, where it has one), ``delay(MS)``. ``@N`` is the N-th time only, ``%P`` each time with probability P (drawn from
``AGENTCOM_FAILPOINTS_SEED``); without either a delay or error happens each time, and a kill once anyway. What happens is first appended to
the file ``AGENTCOM_FAILPOINTS_LOG``, as ``NAME ACTION PID MICROSECONDS-UTC LAST-ARGUMENT``. With ``AGENTCOM_FAILPOINTS_TOKEN`` it happens
only while that file exists, which it takes away, and each point once: so many points can be on in many processes, and one thing happens at
a time. Points of the shim travel from the sidecar that starts it.

Standard library only, and nothing of the product is imported before a seam needs it: a shim runs without site-packages.
"""
