"""The canary breaker: one worker stops asking a canary that only fails."""


class CanaryBreaker:
    """Stops one worker from asking a canary, without waiting for the controller.

    The breaker opens if the newest runs failed on every key, in at least *runs* runs and on at
    least *keys* different keys, while production scored the same rows without a fault. One good
    answer starts the count anew. A canary that fails now and then, or is only late, is judged by
    the controller: on a starved host every canary is late.
    """

    def __init__(self, runs: int, keys: int) -> None:
        self._runs_to_open = runs
        self._keys_to_open = keys
        self._runs = 0
        self._keys: set[int] = set()
        self.open = False
        self.first_bad_unix_ns = 0
        """When the first run of the present series failed; 0 if the last run was good."""

    def record(self, faulty_keys: list[int], *, any_answered: bool, at_unix_ns: int) -> bool:
        """Count one run of the canary. Return True if this run opened the breaker.

        faulty_keys  evidence keys that the canary failed on and production did not.
        """
        if any_answered:
            self._runs, self._keys, self.first_bad_unix_ns = 0, set(), 0
        elif faulty_keys:
            self._runs += 1
            self._keys.update(faulty_keys[: self._keys_to_open])
            self.first_bad_unix_ns = self.first_bad_unix_ns or at_unix_ns
        if self.open or self._runs < self._runs_to_open or len(self._keys) < self._keys_to_open:
            return False
        self.open = True
        return True
