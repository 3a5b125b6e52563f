"""What crosses a border between driftline's rooms: messages, validation, settings, the snapshot format.

Imports nothing else of driftline's; every other package may import it.
"""
