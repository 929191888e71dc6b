"""Coursework on low-rank compression: build the student versions, grade what comes back."""
