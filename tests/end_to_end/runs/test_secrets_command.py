"""Secrets on the command line: tasks have them, and nothing that is shown has."""

import base64

CONFIG = """
    runs:
      - name: r
        tasks:
          - name: t
            environment: {PASS: {from_variable: password}}
            steps:
              - run: {name: use, command: 'test "$PASS" = "correct horse"; printf %s "$TOKEN" | base64'}
              - run: {name: show, command: 'printf "pass: %s, key: %s\\n" "$PASS" "$KEY"; echo user:$TOKEN'}
"""


def test_secrets_are_shown_nowhere(tree, tmp_path):
    tree.configure(CONFIG)
    (tmp_path / "key").write_text("first line\nsecond line\n")
    given = ("--var", "password=correct horse", "--secret", "TOKEN", "--secret-file", f"KEY={tmp_path / 'key'}")
    done = tree.run("run", ".", *given, env={"TOKEN": "battery staple"})
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = tree.runs()
    shown = "".join(
        tree.run(*command).stdout
        for command in (
            ("runs", "show", run["run"]["id"], "--json"),
            ("runs", "show", run["run"]["id"]),
            ("runs", "logs", run["run"]["id"]),
            ("export", "--include", "logs,archives"),
        )
    )
    assert '"PASS":"***"' in shown.replace(": ", ":")
    assert f"pass: {'*' * 13}, key: {'*' * 10}" in done.stdout
    assert f"user:{'*' * 14}" in shown
    for text in ("correct horse", "battery", "first line", "second line", base64.b64encode(b"battery staple").decode()):
        assert text not in done.stdout + done.stderr
        assert text not in shown


def test_a_secret_without_a_value_is_told(tree, tmp_path):
    tree.configure(CONFIG)
    for option, reason in (
        (("--secret", "MISSING_ONE"), "--secret MISSING_ONE: there is no such variable"),
        (("--secret-file", "KEY=none"), "--secret-file KEY=none: "),
        (("--secret-file", "KEY"), "expected NAME=VALUE, not 'KEY'"),
    ):
        done = tree.run("run", ".", *option)
        assert done.returncode == 2
        assert reason in done.stderr
