"""The loops: one file each, none of which knows a door or an adapter."""
