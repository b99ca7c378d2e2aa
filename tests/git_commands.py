"""git for tests that make repositories of their own."""

import subprocess


def git(*command):
    """Run git in the working folder, as somebody; what it prints."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *identity, *map(str, command)], check=True, capture_output=True, text=True)
    return done.stdout.strip()
