"""Work that is due by day, week or month: from stored counts to figures, alarms and verdicts."""
