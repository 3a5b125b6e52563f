"""Forgetting users: the request, the search for what is left of them, and the topics. See docs/forget.md."""
