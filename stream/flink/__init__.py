"""The stream on Apache Flink: the same pure steps, where one machine no longer carries them.

`docs/stream.md` says how it plugs in. `operator` and `job` need PyFlink, which has an environment of its own
(`driftline flink install`); the rest runs in either.
"""
