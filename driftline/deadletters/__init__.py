"""Dead letters: what the topic holds, and originals sent again.

Who writes dead letters, and why, is in `contracts.messages.events`.
"""
