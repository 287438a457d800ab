"""From alarms to incidents in the registry, with what else changed before."""
