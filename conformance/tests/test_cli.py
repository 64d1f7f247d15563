import json

import pytest

from mq9_conformance.cli import main

GOOD = """
- scenario: cli/good
  covers: [SEND-002]
  steps:
    - raw.mailbox_create: {name: $box}
    - raw.send: {mail_address: $box, payload: x}
      expect: 0
"""


@pytest.fixture
def cli(tmp_path, capsys):
    def call(command, *more, text=GOOD):
        folder = tmp_path / "scenarios"
        folder.mkdir(exist_ok=True)
        (folder / "cli.yaml").write_text(text)
        arguments = [command, "--scenarios", str(folder), *more]
        if command in {"run", "mutants"}:
            arguments += ["--reports", str(tmp_path / "reports")]
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_run_against_the_reference_broker(cli, tmp_path):
    code, out, _ = cli("run", "--filter", "cli/good")
    assert code == 0
    assert "1 passed" in out
    assert json.loads((tmp_path / "reports" / "report.json").read_text())["green"] is True


def test_a_failure_is_exit_1_and_can_be_replayed(cli, tmp_path):
    code, out, _ = cli("run", "--sdk", "raw", text=GOOD.replace("expect: 0", "expect: 7"))
    assert code == 1
    assert "result: expected 7, got 0" in out
    assert "cli.yaml:6" in out
    (saved,) = (tmp_path / "reports" / "failures").glob("*.json")
    code, out, _ = cli("replay", str(saved))
    assert code == 1
    assert "again" in out
    assert out.count("$mq9.AI.MSG.SEND.") >= 2


def test_nothing_selected_is_red(cli):
    code, out, _ = cli("run", "--filter", "no-such-scenario")
    assert code == 1
    assert "nothing ran" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sdk", "cobol"), "--sdk: cobol is none of raw"),
        (("--mode", "broker"), "needs --url"),
        (("--url", "nats://127.0.0.1:4222"), "belongs to --mode broker"),
        (("--spec", "/nowhere/at/all", "--known", "/nowhere"), ""),
    ],
)
def test_mistakes_in_arguments_are_exit_2(cli, arguments, message):
    code, _, err = cli("run", *arguments)
    assert code == (2 if message else code)
    assert message in err


def test_a_mistake_in_a_file_is_exit_2_with_its_line(cli):
    code, _, err = cli("run", text=GOOD.replace("SEND-002", "SEND-999"))
    assert code == 2
    assert "cli.yaml:2: SEND-999 is no requirement" in err


def test_lint_list_and_coverage(cli):
    assert cli("lint")[0] == 0
    assert cli("lint", text=GOOD.replace("raw.send", "raw.sned"))[0] == 1
    code, out, _ = cli("list")
    assert code == 0 and "cli/good" in out
    code, out, _ = cli("coverage")
    assert code == 1
    assert "SEND-002" in out and "cli/good" in out
    assert "NOTHING" in out


def test_help_names_every_option(capsys):
    for command in ("run", "list", "lint", "coverage", "mutants", "replay"):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        assert "exit code" in capsys.readouterr().out.replace("\n", " ")
