"""The rules of one agent's side of the protocol. Pure: no loop, no clock, no I/O; time arrives with what happens."""
